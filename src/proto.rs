//! The generated messages of `proto/distilface/v1`, and their descriptors; clients and services are in [`rpc`](crate::rpc).

#![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; documented in the .proto files")]

include!(concat!(env!("OUT_DIR"), "/distilface.v1.rs"));

/// Descriptors of all messages and services, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/distilface_descriptor.bin"));
