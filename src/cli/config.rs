//! `distilface config`: the effective settings as TOML that can be used as a file, each explained and with where it came
//! from; and `config init`, which writes such a file to begin with.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Serialize;
use serde_json::json;

use super::{
    failure::usage,
    layout::{self, LongWords},
    output::{Output, Style},
};
use crate::{
    config::{self, Config, Explained, Loaded},
    meant,
};

/// Columns of a file that is written.
const FILE_WIDTH: usize = 100;

/// Print the effective settings, what each is for, and where it comes from
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ConfigArgs {
    /// Only this key, such as server.listen: prints its bare value
    #[arg(value_name = "KEY")]
    key: Option<String>,
    #[command(subcommand)]
    command: Option<ConfigCommand>,
}

#[derive(Debug, clap::Subcommand)]
enum ConfigCommand {
    /// Write a file with every setting, explained and at its default; one that is there is left alone
    Init {
        /// Where to [default: the file of --config or $DISTILFACE_CONFIG, else ~/.config/distilface/config.toml, which
        /// every command reads]
        #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
}

/// The answer under `--json`.
#[derive(Serialize)]
struct Effective<'a> {
    file: Option<&'a Path>,
    values: &'a Config,
    origins: BTreeMap<String, String>,
    settings: BTreeMap<String, Explained>,
}

impl ConfigArgs {
    /// Writes the file to begin with, if that is what was asked for. It needs no settings: the file that `named` or the
    /// environment says to read may be the one that is to be made.
    pub fn init(&self, named: Option<&Path>, out: &Output) -> Option<anyhow::Result<()>> {
        let ConfigCommand::Init { file } = self.command.as_ref()?;
        Some(init(out, file.as_deref().or(named)))
    }
}

pub fn run(args: &ConfigArgs, out: &Output, loaded: &Loaded) -> anyhow::Result<()> {
    let settings = settings(&loaded.config)?;
    if let Some(key) = &args.key {
        return print_one(out, &settings, key);
    }
    if out.is_json() {
        let keys = || settings.iter().map(|setting| setting.key.clone());
        let origins = keys().map(|key| (key.clone(), loaded.origin(&key).to_string())).collect();
        let explained = keys().map(|key| (key.clone(), config::explain(&key))).collect();
        return out.document(&Effective {
            file: loaded.file.as_deref(),
            values: &loaded.config,
            origins,
            settings: explained,
        });
    }
    let head = match &loaded.file {
        Some(path) => format!("# from {}", path.display()),
        None => "# no file: `distilface config init` writes one".to_owned(),
    };
    let mut text = out.paint(Style::Dim, &head);
    let mut last = String::new();
    for Setting { section, name, key, value } in settings {
        if last != section {
            text.push_str(&format!("\n\n{}", out.paint(Style::Bold, &format!("[{section}]"))));
            last = section;
        }
        text.push_str(&format!("\n{}", out.paint(Style::Dim, &comment(&key, out.width()))));
        let origin = loaded.origin(&key).to_string();
        let style = if origin == "default" { Style::Dim } else { Style::Accent };
        text.push_str(&format!("\n{name} = {value}  {}", out.paint(style, &format!("# {origin}"))));
    }
    out.line(&text)
}

/// One setting and its value.
struct Setting {
    section: String,
    name: String,
    /// `section.name`.
    key: String,
    value: toml::Value,
}

fn settings(config: &Config) -> anyhow::Result<Vec<Setting>> {
    let mut all = Vec::new();
    for (section, values) in toml::Table::try_from(config)? {
        let toml::Value::Table(values) = values else { continue };
        for (name, value) in values {
            let key = format!("{section}.{name}");
            all.push(Setting { section: section.clone(), name, key, value });
        }
    }
    Ok(all)
}

fn print_one(out: &Output, settings: &[Setting], key: &str) -> anyhow::Result<()> {
    let Some(Setting { value, .. }) = settings.iter().find(|setting| setting.key == key) else {
        let meant = meant::hint(key, settings.iter().map(|setting| &setting.key));
        return Err(usage(format!(
            "there is no setting {key}{meant}; `distilface config` prints all of them"
        )));
    };
    if out.is_json() {
        return out.document(value);
    }
    out.line(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))?;
    let Explained { meaning, allowed, default } = config::explain(key);
    out.note(&format!("{meaning}. Allowed: {allowed}. Default: {default}"));
    Ok(())
}

/// What a setting is for, may be and is by default, as lines of a TOML file.
fn comment(key: &str, width: usize) -> String {
    let Explained { meaning, allowed, default } = config::explain(key);
    let text = format!("{meaning}: {allowed}. Default {default}.");
    let lines = layout::wrap(&text, width.saturating_sub(2), LongWords::Keep);
    lines.iter().map(|line| format!("# {line}")).collect::<Vec<_>>().join("\n")
}

fn init(out: &Output, named: Option<&Path>) -> anyhow::Result<()> {
    let (path, read) = if let Some(path) = named {
        (path.to_owned(), format!("give it with --config {}", path.display()))
    } else if let Some(path) = config::file_of_variable() {
        (path, format!("every command reads it while {} names it", config::FILE_VARIABLE))
    } else if let Some(path) = config::own_file() {
        (path, "every command reads it".to_owned())
    } else {
        return Err(usage("neither XDG_CONFIG_HOME nor HOME says where your settings are: name a FILE"));
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
    }
    let mut made = match fs::OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(made) => made,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            anyhow::bail!("{} is there already, and is left as it is; name another FILE", path.display())
        }
        Err(e) => return Err(e).with_context(|| format!("writing {}", path.display())),
    };
    made.write_all(template()?.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
    out.result(&json!({ "file": path }), |_| format!("wrote {}; {read}", path.display()))
}

/// A settings file that changes nothing: every setting is there as a comment, at its default.
fn template() -> anyhow::Result<String> {
    let mut text =
        "# Settings of distilface. Take the # away from a line that begins with a name to change it.\n\
                    # DISTILFACE_SECTION__NAME in the environment and flags go over what is here.\n"
            .to_owned();
    let mut last = String::new();
    for Setting { section, name, key, value } in settings(&Config::default())? {
        if last != section {
            text.push_str(&format!("\n[{section}]\n"));
            last = section;
        }
        text.push_str(&format!("{}\n#{name} = {value}\n\n", comment(&key, FILE_WIDTH)));
    }
    Ok(format!("{}\n", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_to_begin_with_changes_nothing_and_can_be_uncommented() {
        let text = template().unwrap();
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), Config::default());
        // A name and its value stand right behind the #, an explanation behind a space.
        let all: String = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        assert_eq!(toml::from_str::<Config>(&all).unwrap(), Config::default());
        assert!(all.contains("# Hits of one search: 1 to 1048576. Default 1000.\nk_max = 1000\n"), "{all}");
    }
}
