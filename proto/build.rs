//! Turns `proto/` into Rust: the messages of the API with their descriptors, its gRPC clients and services, and the
//! ONNX messages.
//! protox parses the files, so no `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost_build::Config;

const API: [&str; 6] = [
    "distilface/v1/common.proto",
    "distilface/v1/collections.proto",
    "distilface/v1/documents.proto",
    "distilface/v1/search.proto",
    "distilface/v1/encoder.proto",
    "distilface/v1/backups.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(API)?;
    fs::write(out.join("distilface_descriptor.bin"), compiler.encode_file_descriptor_set())?;
    let mut config = Config::new();
    // A stable order makes equal messages equal bytes.
    config.btree_map(["."]);
    config.compile_fds(compiler.file_descriptor_set())?;

    // Clients and services in a file of their own: who knows the messages need not know the wire.
    let rpc = out.join("rpc");
    fs::create_dir_all(&rpc)?;
    let mut config = Config::new();
    config.extern_path(".distilface.v1", "crate::proto");
    tonic_prost_build::configure()
        .codec_path("crate::rpc::codec::Codec")
        .out_dir(rpc)
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;

    let onnx = protox::compile(["onnx/onnx.proto"], ["proto"])?;
    let mut config = Config::new();
    config.bytes([".onnx.TensorProto.raw_data"]);
    config.compile_fds(onnx)?;
    Ok(())
}
