//! The generated side of `proto/distilface/v1`: messages, clients and servers.

#![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; documented in the .proto files")]

pub mod codec;

tonic::include_proto!("distilface.v1");

/// Descriptors of all services, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/distilface_descriptor.bin"));
