//! Folders as earlier versions left them, packed into one small file each: they must open for ever.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What format 2 left: see `engine/catalog/golden.rs`.
pub(crate) const FORMAT_2: &[u8] = include_bytes!("golden/format-2.zst");

/// What format 3 left, of the same contents.
pub(crate) const FORMAT_3: &[u8] = include_bytes!("golden/format-3.zst");

/// A file or a folder: its path, and a file's bytes.
type Packed = (PathBuf, Option<Vec<u8>>);

/// All that is below `dir`.
pub(crate) fn pack(dir: &Path) -> Vec<u8> {
    let mut packed: Vec<Packed> = Vec::new();
    for entry in walkdir::WalkDir::new(dir).min_depth(1).sort_by_file_name() {
        let entry = entry.unwrap();
        let bytes = entry.file_type().is_file().then(|| fs::read(entry.path()).unwrap());
        packed.push((entry.path().strip_prefix(dir).unwrap().to_owned(), bytes));
    }
    zstd::bulk::compress(&super::record::encode(&packed), 19).unwrap()
}

/// Makes below `dir` what [`pack`] packed.
pub(crate) fn unpack(packed: &[u8], dir: &Path) {
    const BYTES_MAX: usize = 64 << 20;
    let bytes = zstd::bulk::decompress(packed, BYTES_MAX).unwrap();
    let packed: Vec<Packed> = super::record::decode(&bytes, dir, "the packed folder").unwrap();
    for (path, bytes) in packed {
        let path = dir.join(path);
        match bytes {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None => fs::create_dir_all(path).unwrap(),
        }
    }
}
