//! The ONNX file that is generated from a model's weights, and where it is kept.
//!
//! `onnx/encoder-VERSION-FINGERPRINT.onnx` in the model directory (`-half` behind the fingerprint for the graph in
//! float16, `-packed-VERSION` for the one that takes texts one behind the other), or, where that cannot be written (a read-only
//! volume), the same name in the user's cache folder, or at last in the system's folder for temporary files.
//! Beside it lies `.sum` with its size and CRC-32, and both are compared whenever a process asks for the path
//! (about 10 ms for 90 MB), so that a truncated or damaged file is written again, never loaded.
//!
//! Several processes may do this at once: each writes under a name of its own and renames, and equal weights give
//! equal bytes. Files of other versions or weights in the model directory are removed; a process that has one open
//! keeps it.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{ModelDir, ModelError};
use crate::{
    files,
    onnx::{
        Layout,
        encoder::{PACKED_VERSION, WRITER_VERSION},
    },
};

const BUFFER_BYTES: usize = 1 << 20;

/// The path of the generated file, generating it if no whole one is found.
pub(super) fn onnx_path(model: &ModelDir, layout: Layout) -> Result<PathBuf, ModelError> {
    onnx_path_in(model, layout, &folders(&model.path))
}

fn onnx_path_in(model: &ModelDir, layout: Layout, folders: &[Folder]) -> Result<PathBuf, ModelError> {
    let stem = file_stem(model);
    let name = match layout {
        Layout::Padded => format!("{stem}.onnx"),
        Layout::PaddedHalf => format!("{stem}-half.onnx"),
        Layout::Packed => format!("{stem}-packed-{PACKED_VERSION}.onnx"),
    };
    for folder in folders {
        let path = folder.path.join(&name);
        if folder.is_trusted() && is_whole(&path) {
            return Ok(path);
        }
    }
    let content = generate(model, layout)?;
    let mut refusal = None;
    for folder in folders {
        match folder.keep(&name, &content) {
            Ok(path) => {
                if folder.kind == Kind::Model {
                    remove_others(&folder.path, &stem);
                } else {
                    tracing::warn!(
                        model = %model.path.display(),
                        path = %path.display(),
                        "the model directory cannot be written; its ONNX file is kept elsewhere"
                    );
                }
                return Ok(path);
            }
            Err(source) => refusal = refusal.or(Some(ModelError::Io { path: folder.path.clone(), source })),
        }
    }
    Err(refusal.expect("the model directory is always among the folders"))
}

/// What the names of both graphs begin with.
fn file_stem(model: &ModelDir) -> String {
    let fingerprint = &model.fingerprint.0;
    format!("encoder-{WRITER_VERSION}-{}", fingerprint.get(..12).unwrap_or(fingerprint))
}

/// Writes the graph from the weights.
fn generate(model: &ModelDir, layout: Layout) -> Result<Vec<u8>, ModelError> {
    let weights = model.weights()?;
    let wrong = |source| ModelError::Onnx { path: model.weights_path(), source };
    let graph = model.manifest.graph();
    match layout {
        Layout::Padded => graph.to_bytes(&weights),
        Layout::PaddedHalf => graph.to_half_bytes(&weights),
        Layout::Packed => graph.to_packed_bytes(&weights),
    }
    .map_err(wrong)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Cache,
    Temporary,
}

struct Folder {
    path: PathBuf,
    kind: Kind,
}

/// Where the file may be, best first.
fn folders(model: &Path) -> Vec<Folder> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut folders = vec![Folder { path: model.join("onnx"), kind: Kind::Model }];
    if let Some(cache) = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache"))) {
        folders.push(Folder { path: cache.join("distilface").join("onnx"), kind: Kind::Cache });
    }
    let path = std::env::temp_dir().join("distilface-onnx");
    folders.push(Folder { path, kind: Kind::Temporary });
    folders
}

impl Folder {
    /// A folder for temporary files is shared with other users, who must not be able to slip a model in.
    fn is_trusted(&self) -> bool {
        self.kind != Kind::Temporary || files::is_private(&self.path)
    }

    /// Puts the file and its sum there, each whole or not at all.
    fn keep(&self, name: &str, content: &[u8]) -> io::Result<PathBuf> {
        match self.kind {
            Kind::Model => fs::create_dir_all(&self.path)?,
            Kind::Cache | Kind::Temporary => files::create_private(&self.path)?,
        }
        if !self.is_trusted() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others may write to this folder"));
        }
        let path = self.path.join(name);
        files::write_whole(&path, content)?;
        let sum = sum_line(content.len() as u64, crc32fast::hash(content));
        files::write_whole(&sum_path(&path), sum.as_bytes())?;
        Ok(path)
    }
}

fn sum_path(path: &Path) -> PathBuf {
    path.with_extension("onnx.sum")
}

fn sum_line(bytes: u64, crc32: u32) -> String {
    format!("bytes {bytes} crc32 {crc32:08x}\n")
}

/// Whether the file is there and is what its sum says.
fn is_whole(path: &Path) -> bool {
    let compare = || -> io::Result<bool> {
        let expected = fs::read_to_string(sum_path(path))?;
        let mut file = File::open(path)?;
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut bytes = 0;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(expected == sum_line(bytes, hasher.finalize()));
            }
            hasher.update(&buffer[..read]);
            bytes += read as u64;
        }
    };
    compare().unwrap_or(false)
}

/// Removes generated files of other versions or weights, and what died processes left. Failing costs only space.
fn remove_others(folder: &Path, stem: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let other = entry.file_name();
        let other = other.to_string_lossy();
        let ours = other.strip_prefix(stem).is_some_and(|rest| {
            rest.starts_with(".onnx")
                || rest.starts_with("-half.onnx")
                || rest.starts_with(&format!("-packed-{PACKED_VERSION}.onnx"))
        });
        let stale = other.starts_with("encoder-") && !ours;
        if stale || files::is_remains(&entry) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests;
