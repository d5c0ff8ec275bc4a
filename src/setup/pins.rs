//! Pins say which wheels exist for this machine and where each of their files belongs; `models/default.toml` holds
//! them.
//!
//! Promises: unknown keys and unsafe paths are refused. Leaves out: fetching and checking.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::Pooling;

const DEFAULT: &str = include_str!("../../models/default.toml");

/// Everything that can be set up.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// Version of the file's form; 1.
    format: u32,
    /// The packages, in the order in which they are installed.
    #[serde(rename = "package")]
    pub(super) packages: Vec<Package>,
}

impl Pins {
    /// The pins that this binary was built with.
    pub fn embedded() -> Self {
        Self::parse(DEFAULT).expect("models/default.toml is part of the binary and a test parses it")
    }

    /// Reads pins from their TOML form.
    ///
    /// # Errors
    /// A sentence, where the text is not of that form.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let pins: Pins = toml::from_str(text).map_err(|e| e.to_string())?;
        if pins.format != 1 {
            return Err(format!("format {} is not known, 1 is", pins.format));
        }
        for package in &pins.packages {
            if package.role == Role::Model && package.import.is_none() {
                return Err(format!("{}: a model needs [package.import]", package.name));
            }
            let targets = package.wheels.iter().flat_map(|w| &w.files).map(|f| &f.target);
            for path in targets.chain([&package.folder]) {
                let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
                if path.as_os_str().is_empty() || !path.components().all(plain) {
                    return Err(format!("{}: {} is not a plain relative path", package.name, path.display()));
                }
            }
        }
        Ok(pins)
    }

    /// The folder, under the home folder, of the package with this role.
    pub(super) fn folder(&self, role: Role) -> Option<&Path> {
        self.packages.iter().find(|p| p.role == role).map(|p| p.folder.as_path())
    }

    /// Version of the package with this role.
    pub fn version(&self, role: Role) -> Option<&str> {
        self.packages.iter().find(|p| p.role == role).map(|p| p.version.as_str())
    }
}

/// The purpose of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// ONNX Runtime.
    Runtime,
    /// Intel's provider for it.
    Openvino,
    /// The default model.
    Model,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) role: Role,
    pub(super) required: bool,
    /// Its folder under the home folder.
    pub(super) folder: PathBuf,
    pub(super) licence: String,
    #[serde(rename = "wheel")]
    pub(super) wheels: Vec<Wheel>,
    pub(super) import: Option<Import>,
}

impl Package {
    pub(super) fn wheel_for(&self, platform: &str) -> Option<&Wheel> {
        self.wheels.iter().find(|w| w.platform == platform || w.platform == "any")
    }

    pub(super) fn platforms(&self) -> String {
        self.wheels.iter().map(|w| w.platform.as_str()).collect::<Vec<_>>().join(", ")
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wheel {
    /// `linux-x86_64` and the like, or `any`.
    pub(super) platform: String,
    /// pip's name of the platform; `None` where the wheel holds no machine code.
    pub(super) pip_platform: Option<String>,
    /// The Python whose wheel is pinned, `3.11`; other Pythons' wheels hold the same files.
    #[serde(default = "default_python")]
    pub(super) python: String,
    /// Name of the wheel.
    pub(super) filename: String,
    /// Size of the wheel.
    pub(super) bytes: u64,
    /// Sum of the wheel. Kept for people: the files are compared, and wheels for other Pythons hold the same ones.
    #[serde(rename = "sha256")]
    _sha256: Sums,
    #[serde(rename = "file")]
    pub(super) files: Vec<FilePin>,
}

fn default_python() -> String {
    "3.11".to_owned()
}

impl Wheel {
    /// All files used, unpacked.
    pub(super) fn unpacked_bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilePin {
    /// Path in the wheel.
    pub(super) path: String,
    /// Path under the package's folder.
    pub(super) target: PathBuf,
    pub(super) bytes: u64,
    sha256: Sums,
}

impl FilePin {
    /// Is this, in hex, a sum that the file may have?
    pub(super) fn accepts(&self, sha256: &str) -> bool {
        match &self.sha256 {
            Sums::One(one) => one == sha256,
            Sums::Any(any) => any.iter().any(|one| one == sha256),
        }
    }

    /// The expected checksum, for messages.
    pub(super) fn expected(&self) -> String {
        match &self.sha256 {
            Sums::One(one) => one.clone(),
            Sums::Any(any) => any.join(" or "),
        }
    }
}

/// A sum, or several where builds of one release differ.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Sums {
    One(String),
    Any(Vec<String>),
}

/// What is passed to [`ModelDir::import`](crate::model::ModelDir::import) about the model.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Import {
    pub(super) name: String,
    pub(super) pooling: Pooling,
    pub(super) normalise: bool,
    pub(super) max_tokens: usize,
    pub(super) licence: String,
    pub(super) source: String,
}

/// `linux-x86_64` and the like.
pub(super) fn this_platform() -> String {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_pins_name_everything_that_serving_needs() {
        let pins = Pins::embedded();
        let roles: Vec<Role> = pins.packages.iter().map(|p| p.role).collect();
        assert_eq!(roles, [Role::Runtime, Role::Openvino, Role::Model]);
        assert_eq!(pins.version(Role::Runtime), Some("1.31.1"));
        let runtime = pins.packages[0].wheel_for("linux-x86_64").unwrap();
        let library =
            runtime.files.iter().find(|f| f.target == Path::new("libonnxruntime.so.1.31.1")).unwrap();
        assert!(library.accepts("fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3"));
        let model = &pins.packages[2];
        assert_eq!(model.folder, Path::new("models/minilm-l6"));
        assert!(model.wheel_for("plan9-mips").is_some(), "weights are for any machine");
        for file in pins.packages.iter().flat_map(|p| &p.wheels).flat_map(|w| &w.files) {
            let hex = |s: &str| s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit());
            assert!(hex(&file.expected()), "{}", file.path);
            assert!(file.bytes > 0, "{}", file.path);
        }
    }

    #[test]
    fn a_pin_may_list_several_sums() {
        let pin: FilePin =
            toml::from_str("path = 'a'\ntarget = 'a'\nbytes = 1\nsha256 = ['aa', 'bb']").unwrap();
        assert!(pin.accepts("aa") && pin.accepts("bb") && !pin.accepts("cc"));
        assert_eq!(pin.expected(), "aa or bb");
    }

    #[test]
    fn pins_that_would_write_outside_the_home_are_refused() {
        for folder in ["../x", "/x", "a/../../b", ""] {
            let text = format!(
                "format = 1\n[[package]]\nname = 'p'\nversion = '1'\nrole = 'runtime'\nrequired = true\n\
                 folder = '{folder}'\nlicence = 'MIT'\nwheel = []"
            );
            let error = Pins::parse(&text).unwrap_err();
            assert!(error.contains("not a plain relative path"), "{error}");
        }
    }

    #[test]
    fn a_form_that_is_not_known_is_refused() {
        assert!(Pins::parse("format = 2\npackage = []").unwrap_err().contains("format 2"));
        assert!(Pins::parse("format = 1\npackage = []\nextra = 1").unwrap_err().contains("extra"));
        let model = "format = 1\n[[package]]\nname = 'm'\nversion = '1'\nrole = 'model'\nrequired = true\n\
                     folder = 'm'\nlicence = 'MIT'\nwheel = []";
        assert!(Pins::parse(model).unwrap_err().contains("needs [package.import]"));
    }
}
