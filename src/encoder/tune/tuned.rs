//! Settings that `distilface bench encode --save` measured on this machine, for `auto` to follow.
//!
//! They are kept in `HOME/tuned.toml` and hold only on the machine and for the version that measured them: with another
//! processor, another number of cores or another version of distilface the file is ignored. A file that cannot be read
//! is ignored with a warning, since that only costs speed.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    files::{self, regular},
    processor::Processor,
};

/// The fastest way to encode here, and what it was measured against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuned {
    /// Version of the program that measured.
    pub version: String,
    /// The machine that it was measured on.
    pub machine: String,
    /// The device, as in the configuration.
    pub device: String,
    /// The precision, as in the configuration.
    pub precision: String,
    /// Threads of one inference.
    pub threads: usize,
    /// Tokens of one batch, padding included.
    pub batch_tokens_max: usize,
    /// Documents encoded per second.
    pub documents_per_second: f64,
    /// Mean cosine to vectors in full precision, over the texts that were encoded.
    pub cosine_mean: f64,
}

impl Tuned {
    /// Makes an entry for the file; `version` and `machine` are filled in.
    pub fn here(device: &str, precision: &str, threads: usize, batch_tokens_max: usize) -> Self {
        Tuned {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: machine(),
            device: device.to_owned(),
            precision: precision.to_owned(),
            threads,
            batch_tokens_max,
            documents_per_second: 0.0,
            cosine_mean: 0.0,
        }
    }

    /// Reads what was kept, if it is of this machine and version.
    pub fn load(home: &Path) -> Option<Self> {
        let path = path(home);
        let text = match regular::read_text(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => {
                tracing::warn!(path = %path.display(), error = %e, "cannot be read; going by the processor alone");
                return None;
            }
        };
        match toml::from_str::<Tuned>(&text) {
            Ok(tuned) => {
                let ours = tuned.version == env!("CARGO_PKG_VERSION") && tuned.machine == machine();
                ours.then_some(tuned)
            }
            Err(e) => {
                let error = e.message();
                tracing::warn!(path = %path.display(), error, "not understood; going by the processor alone");
                None
            }
        }
    }

    /// Keeps it, whole or not at all.
    ///
    /// # Errors
    /// Those of writing.
    pub fn save(&self, home: &Path) -> io::Result<PathBuf> {
        let path = path(home);
        let text = toml::to_string(self).map_err(io::Error::other)?;
        std::fs::create_dir_all(home)?;
        files::write_whole(&path, text.as_bytes())?;
        Ok(path)
    }
}

fn path(home: &Path) -> PathBuf {
    home.join("tuned.toml")
}

/// Describes processor and cores.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let processor = Processor::look();
    let field = |name: &str| processor.field(name).unwrap_or("?");
    let kind = format!("{} family {} model {}", field("model name"), field("cpu family"), field("model"));
    format!("{} {kind}, {cores} cores", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_here_is_found_and_what_was_measured_elsewhere_is_not() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Tuned::load(folder.path()), None);
        let mut tuned = Tuned::here("cpu", "int8", 2, 2048);
        let path = tuned.save(folder.path()).unwrap();
        assert_eq!(Tuned::load(folder.path()), Some(tuned.clone()));
        tuned.machine = "another".into();
        tuned.save(folder.path()).unwrap();
        assert_eq!(Tuned::load(folder.path()), None);
        tuned = Tuned { version: "0.0.0".into(), ..Tuned::here("cpu", "int8", 2, 2048) };
        tuned.save(folder.path()).unwrap();
        assert_eq!(Tuned::load(folder.path()), None);
        std::fs::write(path, "device = 7").unwrap();
        assert_eq!(Tuned::load(folder.path()), None);
    }
}
