//! `distilface config`: the effective settings as TOML that can be used as a file, each with where it came from.

use std::collections::BTreeMap;

use serde::Serialize;

use super::output::{Output, Style};
use crate::config::{Config, Loaded};

/// Print the effective settings and where each comes from
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// Only this key, such as server.listen: prints its bare value
    #[arg(value_name = "KEY")]
    key: Option<String>,
}

/// The answer under `--json`.
#[derive(Serialize)]
struct Effective<'a> {
    file: Option<&'a std::path::Path>,
    values: &'a Config,
    origins: BTreeMap<String, String>,
}

pub fn run(args: &ConfigArgs, out: &Output, loaded: &Loaded) -> anyhow::Result<()> {
    let table = toml::Table::try_from(&loaded.config)?;
    let settings: Vec<(&String, &String, &toml::Value)> = table
        .iter()
        .filter_map(|(section, values)| Some((section, values.as_table()?)))
        .flat_map(|(section, values)| values.iter().map(move |(name, value)| (section, name, value)))
        .collect();
    if let Some(key) = &args.key {
        let found = settings.iter().find(|(section, name, _)| *key == format!("{section}.{name}"));
        let Some((_, _, value)) = found else {
            return Err(super::failure::usage(format!(
                "there is no setting {key}; `distilface config` prints all of them"
            )));
        };
        return if out.is_json() {
            out.document(value)
        } else {
            out.line(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
    }
    if out.is_json() {
        let origins = settings.iter().map(|(section, name, _)| format!("{section}.{name}"));
        let origins =
            origins.map(|key| (loaded.origin(&key).to_string(), key)).map(|(o, k)| (k, o)).collect();
        return out.document(&Effective { file: loaded.file.as_deref(), values: &loaded.config, origins });
    }
    let mut text = match &loaded.file {
        Some(path) => out.paint(Style::Dim, &format!("# from {}", path.display())),
        None => out.paint(Style::Dim, "# no file: see --config in `distilface --help`"),
    };
    let mut last = None;
    for (section, name, value) in settings {
        if last != Some(section) {
            text.push_str(&format!("\n\n{}", out.paint(Style::Bold, &format!("[{section}]"))));
            last = Some(section);
        }
        let origin = loaded.origin(&format!("{section}.{name}")).to_string();
        let style = if origin == "default" { Style::Dim } else { Style::Accent };
        text.push_str(&format!("\n{name} = {value}  {}", out.paint(style, &format!("# {origin}"))));
    }
    out.line(&text)
}
