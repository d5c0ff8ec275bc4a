//! The ONNX messages, generated from `proto/onnx/onnx.proto`: the part of the schema that the writer uses.

#![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; documented by the ONNX schema")]

include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
