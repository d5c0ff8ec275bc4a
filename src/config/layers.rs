//! Merges defaults, file, environment and flags into one [`Config`], and records where each value came from.
//!
//! Every value is read by itself against the type of its default, so one bad value does not hide the next.
//! The known keys are those that [`Config::default`] serialises to: a new field of the structs is a new key, and nothing
//! is added here.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

use super::{Config, ConfigError, FILE_VARIABLE, LogFormat, RESERVED_VARIABLES, bounds};
use crate::{files::regular, spelling};

const PREFIX: &str = "DISTILFACE_";

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// No layer set it.
    Default,
    /// A line of a file.
    File {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Variable(name) => write!(f, "variable {name}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// A value that a flag sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// `section.name`.
    pub key: &'static str,
    /// The value as it was typed.
    pub value: String,
    /// The flag's name, for messages.
    pub flag: &'static str,
}

/// The effective settings, and where each came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// The file that was read, if one was.
    pub file: Option<PathBuf>,
    /// The origin of each key that a layer set.
    pub origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// Reads all layers as [`Config::load`] does, and keeps where each value came from.
    ///
    /// # Errors
    /// [`ConfigError::Faults`] with every fault of every layer; [`ConfigError::Read`].
    pub fn read(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        overrides: &[Override],
    ) -> Result<Loaded, ConfigError> {
        let env: BTreeMap<OsString, OsString> = env.into_iter().collect();
        let mut config = Config::default();
        config.data.home = super::home_in(|name| env.get(name.as_ref() as &std::ffi::OsStr).cloned());
        config.data.dir = config.data.home.join("db");
        let mut layers = Layers::over(&config);

        let file = locate(file, &env);
        if let Some(path) = &file {
            let text = regular::read_text(path)
                .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
            layers.file(path, &text);
        }
        layers.environment(&env);
        for o in overrides {
            layers.text(o.key, &o.value, Origin::Flag(o.flag.to_owned()));
        }
        layers.finish(file)
    }

    /// Where the value of `key` came from.
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }
}

impl LogFormat {
    /// The form of the log, as far as it can be read whatever else is wrong with the settings, so that a server that does
    /// not start reports it in that form.
    pub fn told(file: Option<&Path>, env: impl IntoIterator<Item = (OsString, OsString)>) -> LogFormat {
        let env: BTreeMap<OsString, OsString> = env.into_iter().collect();
        let variable = env.iter().find_map(|(name, value)| {
            let name = name.to_str()?.strip_prefix(PREFIX)?;
            name.eq_ignore_ascii_case("log__format").then(|| value.to_string_lossy().into_owned())
        });
        let of_file = || {
            let text = regular::read_text(&locate(file, &env)?).ok()?;
            let (document, _) = DeTable::parse_recoverable(&text);
            let DeValue::Table(log) = document.get_ref().get("log")?.get_ref() else { return None };
            Some(log.get("format")?.get_ref().as_str()?.to_owned())
        };
        match variable.or_else(of_file).as_deref() {
            Some("json") => LogFormat::Json,
            _ => LogFormat::Text,
        }
    }
}

/// The file to read: the one named (which must then exist), else the user's own if there is one.
fn locate(file: Option<&Path>, env: &BTreeMap<OsString, OsString>) -> Option<PathBuf> {
    let var = |name: &str| env.get(std::ffi::OsStr::new(name)).cloned();
    if let Some(named) = file.map(Path::to_owned).or_else(|| file_of_variable(var)) {
        return Some(named);
    }
    own_file(var).filter(|path| path.exists())
}

/// The file that the environment names.
pub(super) fn file_of_variable(var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    var(FILE_VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// Where the user's own file is, or would be.
pub(super) fn own_file(var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let var = |name: &str| var(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let folder = var("XDG_CONFIG_HOME").or_else(|| var("HOME").map(|home| home.join(".config")))?;
    Some(folder.join("distilface/config.toml"))
}

/// The values so far.
struct Layers {
    /// The defaults of every key, which give the known names and their types.
    defaults: Table,
    values: Table,
    origins: BTreeMap<String, Origin>,
    faults: Vec<String>,
}

impl Layers {
    fn over(config: &Config) -> Self {
        let defaults = Table::try_from(config).expect("the configuration is plain data that TOML can hold");
        Layers { values: defaults.clone(), defaults, origins: BTreeMap::new(), faults: Vec::new() }
    }

    fn file(&mut self, path: &Path, text: &str) {
        let line_of =
            |at: usize| 1 + text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count();
        let origin = |at: usize| Origin::File { path: path.to_owned(), line: line_of(at) };
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // What could be read around a syntax error may not be what was meant: only the syntax is reported.
            for error in errors {
                let place = origin(error.span().map_or(0, |span| span.start));
                self.faults.push(format!("{place}: {}", one_line(error.message())));
            }
            return;
        }
        for (section, value) in document.get_ref() {
            let at = origin(section.span().start);
            match value.get_ref() {
                DeValue::Table(table) if self.section(section.get_ref()).is_some() => {
                    for (name, value) in table {
                        let key = format!("{}.{}", section.get_ref(), name.get_ref());
                        let at = origin(name.span().start);
                        match Value::deserialize(toml::de::ValueDeserializer::from(value.clone())) {
                            Ok(value) => self.set(&key, value, at),
                            Err(error) => self.fault(&key, &at, one_line(error.message())),
                        }
                    }
                }
                _ if self.section(section.get_ref()).is_some() => {
                    self.faults.push(format!(
                        "{at}: {0} is a section: write [{0}] and its keys below it",
                        section.get_ref()
                    ));
                }
                // A whole unknown section is one fault, not one per key.
                _ => self.unknown(section.get_ref(), &at),
            }
        }
    }

    fn environment(&mut self, env: &BTreeMap<OsString, OsString>) {
        for (name, value) in env {
            let name = name.to_string_lossy();
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            if RESERVED_VARIABLES.contains(&&*name) || rest.starts_with("TEST_") {
                continue;
            }
            let key = rest.to_lowercase().replace("__", ".");
            if !key.contains('.') {
                // Not a setting, unless an underscore was forgotten. Others put names of their own here: Kubernetes
                // gives every container DISTILFACE_PORT and DISTILFACE_SERVICE_HOST beside a service of this name.
                let meant = self.keys().find(|known| known.replace('.', "_") == key);
                if let Some(meant) = meant {
                    let meant = meant.to_uppercase().replace('.', "__");
                    self.faults
                        .push(format!("variable {name}: no such setting; did you mean {PREFIX}{meant}?"));
                }
                continue;
            }
            let origin = Origin::Variable(name.to_string());
            match value.to_str() {
                Some(value) => self.text(&key, value, origin),
                None => self.fault(&key, &origin, "its value is not UTF-8"),
            }
        }
    }

    /// A value that came as text, read as the type that the key has.
    fn text(&mut self, key: &str, text: &str, origin: Origin) {
        let value = match self.default_of(key) {
            Some(Value::Integer(_)) => text.trim().parse().map(Value::Integer).ok(),
            Some(Value::Float(_)) => text.trim().parse().map(Value::Float).ok(),
            Some(Value::Boolean(_)) => text.trim().parse().map(Value::Boolean).ok(),
            _ => Some(Value::String(text.to_owned())),
        };
        match value {
            Some(value) => self.set(key, value, origin),
            None => self.fault(key, &origin, format_args!("{text:?} cannot be read")),
        }
    }

    fn set(&mut self, key: &str, value: Value, origin: Origin) {
        let Some((section, name)) = key.split_once('.').filter(|_| self.default_of(key).is_some()) else {
            return self.unknown(key, &origin);
        };
        // All defaults but this one value: whatever fails is this value's fault.
        let mut probe = self.defaults.clone();
        put(&mut probe, section, name, value.clone());
        match Config::deserialize(probe) {
            Ok(_) => {
                put(&mut self.values, section, name, value);
                self.origins.insert(key.to_owned(), origin);
            }
            Err(error) => self.fault(key, &origin, format_args!("{value}: {}", one_line(error.message()))),
        }
    }

    fn finish(mut self, file: Option<PathBuf>) -> Result<Loaded, ConfigError> {
        if self.origins.contains_key("data.home") && !self.origins.contains_key("data.dir") {
            let home = self.values.get("data").and_then(|data| data.get("home")).and_then(Value::as_str);
            if let Some(dir) = home.filter(|home| !home.is_empty()).map(|home| Path::new(home).join("db")) {
                put(&mut self.values, "data", "dir", Value::String(dir.to_string_lossy().into_owned()));
            }
        }
        let config = Config::deserialize(self.values.clone())
            .map_err(|error| ConfigError::Faults { faults: vec![one_line(error.message())] })?;
        for fault in bounds::faults(&config) {
            let origin = self.origins.get(fault.key).unwrap_or(&Origin::Default);
            self.faults.push(format!("{origin}: {}: {}", fault.key, fault.message));
        }
        if self.faults.is_empty() {
            Ok(Loaded { config, file, origins: self.origins })
        } else {
            Err(ConfigError::Faults { faults: self.faults })
        }
    }

    fn section(&self, name: &str) -> Option<&Table> {
        self.defaults.get(name).and_then(Value::as_table)
    }

    fn default_of(&self, key: &str) -> Option<&Value> {
        let (section, name) = key.split_once('.')?;
        self.section(section)?.get(name)
    }

    fn keys(&self) -> impl Iterator<Item = String> + '_ {
        self.defaults.iter().flat_map(|(section, table)| {
            table.as_table().into_iter().flat_map(move |t| t.keys().map(move |k| format!("{section}.{k}")))
        })
    }

    fn fault(&mut self, key: &str, origin: &Origin, problem: impl fmt::Display) {
        if self.default_of(key).is_none() {
            return self.unknown(key, origin);
        }
        let problem = problem.to_string();
        let meant = crate::meant::hint_of(&problem);
        self.faults.push(format!("{origin}: {key}: {problem}{meant}; allowed: {}", bounds::allowed(key)));
    }

    fn unknown(&mut self, key: &str, origin: &Origin) {
        let hint = match self.nearest(key) {
            Some(near) => format!("did you mean {near}?"),
            None => match key.split_once('.').and_then(|(name, _)| Some((name, self.section(name)?))) {
                Some((name, section)) => format!("known keys of [{name}]: {}", join(section.keys())),
                None => format!("known sections: {}", join(self.defaults.keys())),
            },
        };
        self.faults.push(format!("{origin}: unknown key {key}; {hint}"));
    }

    /// The known key that `key` may be a misspelling of: few letters away, or the same name in another section.
    fn nearest(&self, key: &str) -> Option<String> {
        let candidates: Vec<String> =
            if key.contains('.') { self.keys().collect() } else { self.defaults.keys().cloned().collect() };
        let (away, near) = candidates.into_iter().map(|known| (spelling::edits(key, &known), known)).min()?;
        if away <= (key.len() / 3).max(1) {
            return Some(near);
        }
        let name = key.rsplit('.').next()?;
        self.keys().find(|known| known.rsplit('.').next() == Some(name))
    }
}

fn put(table: &mut Table, section: &str, name: &str, value: Value) {
    if let Some(section) = table.get_mut(section).and_then(Value::as_table_mut) {
        section.insert(name.to_owned(), value);
    }
}

fn join<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn one_line(message: &str) -> String {
    message.trim().lines().map(str::trim).collect::<Vec<_>>().join("; ")
}
