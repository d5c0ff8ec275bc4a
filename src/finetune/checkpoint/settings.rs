//! The settings that a run began with against those that it is to go on with: what differs, by name.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

use crate::model::FileSum;

/// A setting that differs; `none` stands for a setting that one side lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Name of the setting.
    pub key: String,
    /// Its value when the checkpoint was written.
    pub old: String,
    /// Its value now.
    pub new: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} then, {} now", self.key, self.old, self.new)
    }
}

/// One change a line.
pub(super) fn lines(changes: &[Change]) -> String {
    let lines: Vec<String> = changes.iter().map(|change| format!("  {change}")).collect();
    lines.join("\n")
}

/// SHA-256 of settings: of their keys in order, each with its value.
pub(super) fn sum(settings: &Value) -> String {
    let text: String = flat(settings).iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    FileSum::of_bytes(text.as_bytes()).sha256
}

/// Every difference but those in `free` keys.
pub(super) fn changes(old: &Value, new: &Value, free: &[&str]) -> Vec<Change> {
    let (old, new) = (flat(old), flat(new));
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    let none = || "none".to_owned();
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key) && !free.iter().any(|free| is_within(key, free)))
        .map(|key| Change {
            key: key.clone(),
            old: old.get(key).cloned().unwrap_or_else(none),
            new: new.get(key).cloned().unwrap_or_else(none),
        })
        .collect()
}

/// Whether `key` is `outer` or inside it.
fn is_within(key: &str, outer: &str) -> bool {
    key.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Every value under its whole key, as JSON text.
fn flat(settings: &Value) -> BTreeMap<String, String> {
    fn walk(key: String, value: &Value, all: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    walk(key, value, all);
                }
            }
            // A list of tables differs by table, a list of numbers as a whole.
            Value::Array(list) if list.iter().any(Value::is_object) => {
                for (at, value) in list.iter().enumerate() {
                    walk(format!("{key}[{}]", at + 1), value, all);
                }
            }
            // Not set is not there.
            Value::Null => {}
            _ => {
                all.insert(key, value.to_string());
            }
        }
    }
    // Once through text: numbers of a file and of memory are then read by the same reader, which may round.
    let same: Value = serde_json::from_str(&settings.to_string()).unwrap_or_else(|_| settings.clone());
    let mut all = BTreeMap::new();
    walk(String::new(), &same, &mut all);
    all
}
