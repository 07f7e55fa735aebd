//! Generates the agent's messages from `spec/envd`, without `protoc`.

use std::path::PathBuf;

use prost_build::Config;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spec = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../spec/envd");
    println!("cargo:rerun-if-changed={}", spec.display());
    let files = protox::compile(
        [spec.join("process.proto"), spec.join("filesystem.proto")],
        [&spec],
    )?;

    let mut json = pbjson_build::Builder::new();
    for file in &files.file {
        json.register_file_descriptor(file.clone());
    }
    json.extern_path(".google.protobuf", "crate")
        .btree_map(["."])
        .ignore_unknown_fields()
        .ignore_unknown_enum_variants()
        .build(&[".process", ".filesystem"])?;

    Config::new()
        .bytes(["."])
        .btree_map(["."])
        .extern_path(".google.protobuf.Timestamp", "crate::Timestamp")
        .compile_fds(files)?;
    Ok(())
}
