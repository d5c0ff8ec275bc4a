//! `distilface setup`: fetch ONNX Runtime, Intel's provider and the default model, and say what was done.

use std::{path::PathBuf, time::Instant};

use super::{
    layout,
    output::{Output, Progress, Style},
};
use crate::{
    config::Config,
    setup::{self, Event, Item, Options, Pins, Report, Role, Status},
};

/// Fetch what serving needs: ONNX Runtime, Intel's provider for it and the default model
///
/// Everything is downloaded with pip and checked against the sums that this program was built with. What is there
/// already is left alone, and an interrupted run goes on where it was.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "About 370 MB on disk, of which 160 MB are Intel's provider. Mirrors and proxies are pip's: \
                        see `pip config`."
)]
pub struct SetupArgs {
    /// Take the wheels from this folder and download nothing
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    from: Option<PathBuf>,
    /// Put everything here [default: $DISTILFACE_HOME, else $XDG_DATA_HOME/distilface, else ~/.local/share/distilface]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    home: Option<PathBuf>,
    /// Install again what is there
    #[arg(long)]
    force: bool,
    /// Compare the sums of what is there, not only the sizes
    #[arg(long)]
    verify: bool,
    /// Leave Intel's provider out
    #[arg(long, conflicts_with = "only")]
    no_openvino: bool,
    /// Only this part
    #[arg(long, value_name = "PART", value_enum)]
    only: Option<Part>,
    /// The Python whose pip downloads [default: python3, else python]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::ExecutablePath)]
    python: Option<PathBuf>,
}

/// A part of the set-up, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// ONNX Runtime
    Runtime,
    /// Intel's provider
    Openvino,
    /// The default model
    Model,
}

/// Fetches what is missing.
pub fn run(args: &SetupArgs, out: &Output, config: &Config) -> anyhow::Result<()> {
    let options = Options {
        from: args.from.clone(),
        force: args.force,
        verify: args.verify,
        no_openvino: args.no_openvino,
        only: args.only.map(|part| match part {
            Part::Runtime => Role::Runtime,
            Part::Openvino => Role::Openvino,
            Part::Model => Role::Model,
        }),
        python: args.python.clone(),
        ..Options::new(args.home.as_ref().unwrap_or(&config.data.home))
    };
    let mut show = Show { out, current: None };
    let report = setup::install(&Pins::embedded(), &options, &mut |event| show.event(event));
    drop(show);
    let report = report.map_err(crate::Error::from)?;
    out.result(&report, |report| summary(report, args.home.is_some(), out))
}

/// Events as bars and lines.
struct Show<'a> {
    out: &'a Output,
    current: Option<Step<'a>>,
}

struct Step<'a> {
    /// What is going on with which package: another text begins another bar.
    what: String,
    began: Instant,
    bar: Progress<'a>,
}

impl Show<'_> {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Waiting { holder } => {
                self.out.note(&format!("another setup ({holder}) is at work; waiting for it"));
            }
            Event::Downloading { package, done, total } => self.advance("downloading", package, done, total),
            Event::Unpacking { package, done, total } => self.advance("unpacking", package, done, total),
            Event::Checking { package, done, total } => self.advance("checking", package, done, total),
            Event::Graph { package } => {
                self.current = None;
                self.out.note(&format!("{package}: importing the model and writing its ONNX file"));
            }
            Event::Done(item) => {
                self.current = None;
                if item.status == Status::Failed {
                    let reason = item.note.as_deref().unwrap_or("unknown");
                    self.out
                        .warn(&format!("{} is optional and could not be installed: {reason}", item.package));
                } else {
                    self.out.note(&line(item));
                }
            }
        }
    }

    fn advance(&mut self, verb: &str, package: &str, done: u64, total: u64) {
        let what = format!("{verb} {package}");
        let same = self.current.take().filter(|step| step.what == what);
        let step = self.current.insert(same.unwrap_or_else(|| Step {
            began: Instant::now(),
            bar: self.out.progress(&what, Some(total)),
            what,
        }));
        let rate = done as f64 / step.began.elapsed().as_secs_f64().max(0.001) / 1e6;
        step.bar.set(done, &format!("{} of {}, {rate:.1} MB/s", layout::bytes(done), layout::bytes(total)));
    }
}

fn line(item: &Item) -> String {
    let name = format!("{} {}", item.package, item.version);
    let size = layout::bytes(item.bytes);
    match item.status {
        Status::Present => format!("{name}: already there ({size}), {}", item.path.display()),
        Status::Installed => format!("{name}: installed ({size}), {}", item.path.display()),
        Status::Skipped | Status::Failed => {
            format!("{name}: left out, {}", item.note.as_deref().unwrap_or("not asked for"))
        }
    }
}

fn summary(report: &Report, home_was_given: bool, out: &Output) -> String {
    let done = match report.downloaded_bytes {
        0 => "nothing had to be downloaded".to_owned(),
        n => format!("{} downloaded", layout::bytes(n)),
    };
    let licences: Vec<String> = report
        .items
        .iter()
        .filter(|item| item.bytes > 0)
        .map(|item| format!("{} ({})", item.package, item.licence))
        .collect();
    let seconds = std::time::Duration::from_secs_f64(report.seconds);
    let mut lines = vec![
        ("home", report.home.display().to_string()),
        ("size", format!("{}; {done}, {}", layout::bytes(report.bytes), layout::duration(seconds))),
    ];
    if !licences.is_empty() {
        lines.push(("licences", licences.join(", ")));
    }
    let whole = report.items.iter().filter(|i| i.role != Role::Openvino).all(|i| i.bytes > 0);
    if whole {
        let variable = if home_was_given {
            format!("DISTILFACE_HOME={} ", report.home.display())
        } else {
            String::new()
        };
        lines.push(("next", out.paint(Style::Bold, &format!("{variable}distilface serve"))));
    }
    layout::pairs(&lines, out.width())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::ColorChoice;

    fn item(status: Status, bytes: u64, role: Role) -> Item {
        Item {
            package: "lib".into(),
            version: "1.0".into(),
            role,
            licence: "MIT".into(),
            status,
            path: "/home/me/lib".into(),
            bytes,
            downloaded_bytes: 0,
            note: Some("why".into()),
        }
    }

    #[test]
    fn every_outcome_is_one_line_that_says_where() {
        assert_eq!(
            line(&item(Status::Present, 2048, Role::Runtime)),
            "lib 1.0: already there (2.0 KiB), /home/me/lib"
        );
        assert!(line(&item(Status::Installed, 1, Role::Runtime)).contains("installed (1 B), /home/me/lib"));
        assert_eq!(line(&item(Status::Skipped, 0, Role::Openvino)), "lib 1.0: left out, why");
    }

    #[test]
    fn the_next_command_is_told_once_everything_needed_is_there() {
        let out = Output::new(false, true, ColorChoice::Never);
        let mut report = Report {
            home: "/h".into(),
            items: vec![item(Status::Present, 1, Role::Runtime), item(Status::Failed, 0, Role::Openvino)],
            bytes: 1,
            downloaded_bytes: 0,
            seconds: 0.5,
        };
        let text = summary(&report, false, &out);
        assert!(text.contains("nothing had to be downloaded") && text.contains("distilface serve"), "{text}");
        assert!(summary(&report, true, &out).contains("DISTILFACE_HOME=/h distilface serve"));
        report.items.push(item(Status::Skipped, 0, Role::Model));
        assert!(!summary(&report, false, &out).contains("serve"));
    }
}
