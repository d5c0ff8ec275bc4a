//! The generated gRPC clients and services of `proto/distilface/v1`; the messages are in [`proto`](crate::proto).

#![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; documented in the .proto files")]

pub mod codec;

include!(concat!(env!("OUT_DIR"), "/rpc/distilface.v1.rs"));
