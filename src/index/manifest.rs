//! The manifest is the small file that joins a folder of index files: it says what they are, of which state, and gives
//! a checksum of each.
//!
//! `manifest.json` is written last, under a temporary name, and renamed into place: without it a folder is no saved
//! index. Its first line is `distilface-index VERSION CRC32`, the CRC being that of the JSON that follows, so a
//! changed manifest is seen like a changed file. Checksums find accidents, not malice.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{IndexError, IndexKind, Slot, Stamp};
use crate::{
    files::regular,
    files::write_whole_with,
    vector::{Dim, Metric},
};

const NAME: &str = "manifest.json";
const FORMAT: &str = "distilface-index";
const VERSION: u32 = 1;

/// What a saved index is. Parameters that only a search uses are left out: they may change between starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub kind: IndexKind,
    pub dim: Dim,
    pub metric: Metric,
    /// 0 where the kind has no graph.
    pub m: u16,
    /// 0 where the kind has no graph.
    pub ef_construction: u16,
    pub vectors: usize,
    pub highest: Option<Slot>,
    pub stamp: Stamp,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    /// Bits and byte order of the machine: graph files hold its native numbers.
    layout: String,
    index: Manifest,
    files: Vec<SealedFile>,
}

#[derive(Serialize, Deserialize)]
struct SealedFile {
    name: String,
    bytes: u64,
    crc32: u32,
}

/// Writes one file of an index and syncs it.
pub(super) fn write_file(
    dir: &Path,
    name: &str,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), IndexError> {
    let path = dir.join(name);
    let wrote = File::create(&path).and_then(|file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        write(&mut out)?;
        out.flush()?;
        out.get_ref().sync_all()
    });
    wrote.map_err(|source| IndexError::Io { path, source })
}

/// Checksums the files, which are synced already, and makes the folder a saved index.
pub(super) fn seal(dir: &Path, index: &Manifest, files: &[&str]) -> Result<(), IndexError> {
    let files = files
        .iter()
        .map(|name| {
            let path = dir.join(name);
            let (bytes, crc32) = checksum(&path).map_err(|source| IndexError::Io { path, source })?;
            Ok(SealedFile { name: (*name).to_owned(), bytes, crc32 })
        })
        .collect::<Result<_, IndexError>>()?;
    let json = serde_json::to_vec_pretty(&Sealed { layout: layout(), index: index.clone(), files })
        .expect("a struct of numbers and strings is valid JSON");
    let path = dir.join(NAME);
    let wrote = write_whole_with(&path, |out| {
        writeln!(out, "{FORMAT} {VERSION} {:08x}", crc32fast::hash(&json))?;
        out.write_all(&json)
    });
    wrote.map_err(|source| IndexError::Io { path, source })
}

/// Reads the manifest and checks every file it names to the last byte.
pub(super) fn open(dir: &Path) -> Result<Manifest, IndexError> {
    let path = dir.join(NAME);
    let bytes =
        regular::read(&path, regular::SMALL_BYTES_MAX).map_err(|e| missing_is_damage(path.clone(), e))?;
    let sealed = parse(&bytes).map_err(|reason| IndexError::Damaged { path, reason })?;
    for file in &sealed.files {
        // Names come from the folder itself, but a checksum stops accidents only: stay inside it.
        let path = dir.join(Path::new(&file.name).file_name().unwrap_or_default());
        let (bytes, crc32) = checksum(&path).map_err(|e| missing_is_damage(path.clone(), e))?;
        let reason = if bytes != file.bytes {
            format!("it has {bytes} bytes, {} were written", file.bytes)
        } else if crc32 != file.crc32 {
            format!("its checksum is {crc32:08x}, {:08x} was written", file.crc32)
        } else {
            continue;
        };
        return Err(IndexError::Damaged { path, reason });
    }
    Ok(sealed.index)
}

/// CRC32 of the manifest: it has the checksums of all other files.
pub(super) fn sum(dir: &Path) -> Result<u32, IndexError> {
    let path = dir.join(NAME);
    checksum(&path).map(|(_, crc32)| crc32).map_err(|e| missing_is_damage(path, e))
}

impl Manifest {
    /// Refuses files of another index than the one wanted.
    pub(super) fn expect(&self, dir: &Path, wanted: &Manifest) -> Result<(), IndexError> {
        let differs = |name: &'static str, got: String, expected: String| {
            Err(IndexError::Mismatch { path: dir.join(NAME), name, expected, got })
        };
        if self.kind != wanted.kind {
            differs("kind", format!("{:?}", self.kind), format!("{:?}", wanted.kind))
        } else if self.dim != wanted.dim {
            differs("dimension", self.dim.as_u32().to_string(), wanted.dim.as_u32().to_string())
        } else if self.metric != wanted.metric {
            differs("metric", format!("{:?}", self.metric), format!("{:?}", wanted.metric))
        } else if self.m != wanted.m {
            differs("m", self.m.to_string(), wanted.m.to_string())
        } else if self.ef_construction != wanted.ef_construction {
            differs("ef_construction", self.ef_construction.to_string(), wanted.ef_construction.to_string())
        } else if self.stamp != wanted.stamp {
            differs("stamp", format!("{:02x?}", self.stamp.0), format!("{:02x?}", wanted.stamp.0))
        } else {
            Ok(())
        }
    }
}

/// Reads the whole of a file that [`open`] has checked.
pub(super) fn read_file(dir: &Path, _checked: &Manifest, name: &str) -> Result<Vec<u8>, IndexError> {
    let path = dir.join(name);
    regular::read(&path, u64::MAX).map_err(|e| missing_is_damage(path, e))
}

fn parse(bytes: &[u8]) -> Result<Sealed, String> {
    let end = bytes.iter().position(|b| *b == b'\n').ok_or("it has no first line")?;
    let (line, json) = (&bytes[..end], &bytes[end + 1..]);
    let line = str::from_utf8(line).map_err(|_| "its first line is not text")?;
    let mut words = line.split(' ');
    if words.next() != Some(FORMAT) {
        return Err(format!("it does not start with {FORMAT}"));
    }
    let version = words.next().unwrap_or_default();
    if version != VERSION.to_string() {
        return Err(format!("its format is version {version:?}, this program knows {VERSION}"));
    }
    let crc = words.next().and_then(|word| u32::from_str_radix(word, 16).ok());
    if crc != Some(crc32fast::hash(json)) {
        return Err("its checksum does not match".to_owned());
    }
    let sealed: Sealed = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    if sealed.layout != layout() {
        return Err(format!("it was written on a machine of {}, this one is {}", sealed.layout, layout()));
    }
    Ok(sealed)
}

fn layout() -> String {
    format!(
        "{} bits {}",
        usize::BITS,
        if cfg!(target_endian = "little") { "little-endian" } else { "big-endian" }
    )
}

fn checksum(path: &Path) -> io::Result<(u64, u32)> {
    let mut file = regular::open(path)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0u8; 1 << 20];
    let mut bytes = 0u64;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((bytes, hasher.finalize()));
        }
        hasher.update(&buffer[..n]);
        bytes += n as u64;
    }
}

/// A file that should be there and is not is damage, like any other change of the folder.
fn missing_is_damage(path: PathBuf, e: io::Error) -> IndexError {
    if e.kind() == io::ErrorKind::NotFound {
        IndexError::Damaged { path, reason: "it is missing".to_owned() }
    } else {
        IndexError::Io { path, source: e }
    }
}
