//! The file `backup` of a backup: what is in it, with the length and the SHA-256 of every other file.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    files::{disk::Disk, sums::Sum},
    store::{
        Identity, StoreError,
        record::{frame, unframe},
    },
};

/// Its name.
pub(super) const FILE: &str = "backup";

/// Version of a backup; see `FORMAT.md`.
pub(super) const FORMAT: u32 = 1;

/// Longest one that is read: some hundred thousand collections.
const BYTES_MAX: u64 = 256 << 20;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) format: u32,
    /// Version of the program that made it.
    pub(super) version: String,
    /// When it was begun, in microseconds since 1970: what was acknowledged before is in it.
    pub(super) made_at: i64,
    /// By name.
    pub(super) collections: Vec<Kept>,
}

/// A collection in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    pub(super) name: String,
    /// Name of its folder in the backup.
    pub(super) folder: String,
    /// Which collection it was.
    pub(super) identity: Identity,
    /// The entry of the log, in the folder that it was of, up to which everything is in it.
    pub(super) sequence: u64,
    pub(super) documents: u64,
    pub(super) passages: u64,
    pub(super) aliases: Vec<String>,
    /// By path.
    pub(super) files: Vec<KeptFile>,
}

/// A file of a collection in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptFile {
    /// Below the collection's folder, with `/` between names.
    pub(super) path: String,
    pub(super) bytes: u64,
    /// 64 hexadecimal digits.
    pub(super) sha256: String,
}

impl KeptFile {
    pub(super) fn new(path: &Path, sum: Sum) -> Self {
        let names = path.components().map(|name| name.as_os_str().to_string_lossy());
        KeptFile { path: names.collect::<Vec<_>>().join("/"), bytes: sum.bytes, sha256: sum.digits() }
    }

    /// Where it lies below the collection's folder.
    pub(super) fn place(&self) -> PathBuf {
        self.path.split('/').collect()
    }

    fn sum(&self) -> Option<Sum> {
        let digits = self.sha256.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut sha256 = [0; 32];
        for (byte, pair) in sha256.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Sum { bytes: self.bytes, sha256 })
    }
}

impl Kept {
    /// What each file should be, by where it lies below the collection's folder.
    pub(super) fn sums(&self) -> BTreeMap<PathBuf, Sum> {
        self.files.iter().filter_map(|file| Some((file.place(), file.sum()?))).collect()
    }

    /// Bytes of its files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

impl Manifest {
    /// As it is written: a frame around JSON.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        frame(&serde_json::to_vec(self).expect("plain data has a JSON form")).0
    }

    /// Reads the one in `dir`; `None` if there is no such file.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::NewerFormat`], [`StoreError::NotUnderstood`], [`StoreError::Io`].
    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = dir.join(FILE);
        let file = match disk.read_only(&path) {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                return Err(StoreError::corrupt(&path, e.to_string()));
            }
            Err(e) => return Err(StoreError::io(&path, e)),
        };
        let len = file.len().map_err(|e| StoreError::io(&path, e))?;
        if len > BYTES_MAX {
            return Err(StoreError::corrupt(
                &path,
                format!("it has {len} bytes, more than any backup's list"),
            ));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_exact_at(0, &mut bytes).map_err(|e| StoreError::io(&path, e))?;
        Self::parse(&unframe(&bytes, &path, "it")?.0, &path).map(Some)
    }

    fn parse(body: &[u8], path: &Path) -> Result<Self, StoreError> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let not_understood =
            |e: serde_json::Error| StoreError::NotUnderstood { path: path.to_owned(), reason: e.to_string() };
        let Versioned { format } = serde_json::from_slice(body).map_err(not_understood)?;
        if format > FORMAT {
            return Err(StoreError::NewerFormat { path: path.to_owned(), got: format, supported: FORMAT });
        }
        let manifest: Manifest = serde_json::from_slice(body).map_err(not_understood)?;
        manifest.check().map_err(|reason| StoreError::corrupt(path, reason))?;
        Ok(manifest)
    }

    /// Refuses what nothing of ours writes: above all, names that lead out of the backup.
    fn check(&self) -> Result<(), String> {
        let (mut names, mut folders) = (BTreeSet::new(), BTreeSet::new());
        for kept in &self.collections {
            if !names.insert(&kept.name) || !folders.insert(&kept.folder) {
                return Err(format!(
                    "it has two collections {:?}, or two folders {:?}",
                    kept.name, kept.folder
                ));
            }
            let mut paths = BTreeSet::new();
            for path in std::iter::once(&kept.folder).chain(kept.files.iter().map(|file| &file.path)) {
                let is_inside = !path.is_empty()
                    && !path.contains(['\\', ':', '\0'])
                    && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
                    && path.split('/').all(|name| !matches!(name, "" | "." | ".."));
                if !is_inside {
                    return Err(format!("it names {path:?}, which is no place in a backup"));
                }
            }
            if kept.folder.contains('/') {
                return Err(format!("it names {:?}, which is no folder of a backup", kept.folder));
            }
            for file in &kept.files {
                if file.sum().is_none() || !paths.insert(&file.path) {
                    return Err(format!("what it says of {:?} cannot be", file.path));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::disk::RealDisk;

    fn manifest() -> Manifest {
        let file = |path: &str, byte| KeptFile::new(Path::new(path), Sum { bytes: 3, sha256: [byte; 32] });
        Manifest {
            format: FORMAT,
            version: "0.1.0".to_owned(),
            made_at: 1_700_000_000_000_000,
            collections: vec![Kept {
                name: "a".to_owned(),
                folder: "00064a-0".to_owned(),
                identity: Identity([3; 16]),
                sequence: 9,
                documents: 2,
                passages: 3,
                aliases: vec!["live".to_owned()],
                files: vec![file("0000000001/documents", 1), file("collection", 0xff)],
            }],
        }
    }

    fn written(manifest: &Manifest) -> Result<Option<Manifest>, StoreError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), manifest.to_bytes()).unwrap();
        Manifest::read(&RealDisk, dir.path())
    }

    #[test]
    fn it_is_read_back_with_its_sums() {
        let manifest = manifest();
        assert_eq!(written(&manifest).unwrap().unwrap(), manifest);
        let sums = manifest.collections[0].sums();
        assert_eq!(sums[Path::new("0000000001/documents")].sha256, [1; 32]);
        assert_eq!(sums[Path::new("collection")], Sum { bytes: 3, sha256: [0xff; 32] });
        assert_eq!(manifest.collections[0].bytes(), 6);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::read(&RealDisk, dir.path()).unwrap(), None);
        assert_eq!(Manifest::read(&RealDisk, &dir.path().join("none")).unwrap(), None);
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let good = manifest().to_bytes();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            for bad in [&bad[..], &good[..at]] {
                std::fs::write(dir.path().join(FILE), bad).unwrap();
                assert!(Manifest::read(&RealDisk, dir.path()).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn names_that_lead_out_of_the_backup_are_refused() {
        type Change = fn(&mut Kept);
        let changes: [Change; 9] = [
            |kept| kept.folder = "..".to_owned(),
            |kept| kept.folder = "a/b".to_owned(),
            |kept| kept.folder = String::new(),
            |kept| kept.files[0].path = "/etc/passwd".to_owned(),
            |kept| kept.files[0].path = "../../secret".to_owned(),
            |kept| kept.files[0].path = "a//b".to_owned(),
            |kept| kept.files[0].path = "a/./b".to_owned(),
            |kept| kept.files[0].path = "collection".to_owned(),
            |kept| kept.files[0].sha256 = "é".repeat(32),
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let mut bad = manifest();
            change(&mut bad.collections[0]);
            let error = written(&bad).unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{n}: {error}");
        }
        let mut twice = manifest();
        twice.collections.push(twice.collections[0].clone());
        assert!(matches!(written(&twice).unwrap_err(), StoreError::Corrupt { .. }));
    }

    #[test]
    fn one_of_a_later_version_is_refused_as_such() {
        let later = Manifest { format: FORMAT + 1, ..manifest() };
        assert!(matches!(written(&later).unwrap_err(), StoreError::NewerFormat { got: 2, supported: 1, .. }));
    }
}
