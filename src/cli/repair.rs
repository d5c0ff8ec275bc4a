//! `distilface repair` makes damaged collections whole again with what can still be read. It says first what that would
//! drop, and does it with `--yes`, or if the answer on a terminal is yes.

use std::{io::Write as _, path::PathBuf};

use anyhow::Context;

use super::{
    App,
    failure::Stop,
    layout::{self, LongWords},
    output::{Output, Style},
    signals::stoppable,
    verify::damage_text,
};
use crate::engine::{self, Dropped, RepairState, RepairedFolder, RepairedPart};

/// Ids that are printed of one loss; `--ids` and `--json` have all.
const IDS_PRINTED_MAX: usize = 20;

/// Say what making damaged collections whole again would drop; do it with --yes
///
/// Keeps every document that can still be read, and moves damaged files, untouched, into the folder `damaged` of the
/// data folder. Collections that are whole are not touched. On a terminal it asks before it does anything; elsewhere it
/// only says what it would do. No server may have the folder open. Exits with 4 if something is still damaged: always
/// where it only says.
#[derive(Debug, clap::Args)]
pub struct RepairArgs {
    /// Collections [default: all that are damaged]
    #[arg(value_name = "COLLECTION")]
    collections: Vec<String>,
    /// Do it, and do not ask
    #[arg(long, short, visible_alias = "apply")]
    yes: bool,
    /// Only say what it would do, and do not ask
    #[arg(long, short = 'n', conflicts_with = "yes")]
    dry_run: bool,
    /// Write the ids of all documents that are dropped, or would be, into this new file: a JSON object in each line
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    ids: Option<PathBuf>,
}

/// Repairs or says what would be done, prints it, and fails if something stays damaged.
pub fn run(app: &App, args: &RepairArgs) -> anyhow::Result<()> {
    let (dir, names) = (&app.loaded.config.data.dir, &args.collections);
    // A signal may end it anywhere: each collection is as it was then, or repaired.
    let (report, is_told) = stoppable(app, || {
        let stop = crate::stop::Stop::default();
        let mut asked = Ok(None);
        let report = if args.yes || args.dry_run || !app.out.can_ask() {
            engine::repair_folder(dir, names, args.yes, &stop)
        } else {
            engine::repair_folder_if(dir, names, &stop, |said| {
                asked = ask(said, &app.out).map(Some);
                matches!(asked, Ok(Some(true)))
            })
        };
        let is_told = asked?.is_some();
        Ok((report.map_err(crate::Error::from)?, is_told))
    })?;
    if let Some(path) = &args.ids {
        write_ids(path, &report)?;
    }
    if is_told && !report.applied {
        // What it would do stands above the question.
        app.out.note("nothing was changed");
    } else {
        app.out.result(&report, |report| text(report, &app.out))?;
    }
    let is_whole = parts(&report).all(|part| match part.state {
        RepairState::Whole => true,
        RepairState::Repaired => report.applied,
        RepairState::Unrepairable => false,
    });
    if is_whole { Ok(()) } else { Err(Stop::Damaged.into()) }
}

fn parts(report: &RepairedFolder) -> impl Iterator<Item = &RepairedPart> {
    report.log.iter().chain(&report.collections)
}

/// Says what would be done, and asks whether it is to be.
fn ask(said: &RepairedFolder, out: &Output) -> anyhow::Result<bool> {
    out.line(&text(said, out))?;
    out.ask("do this?")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes" | "YES"))
}

/// Every id that is dropped, or would be.
fn write_ids(path: &std::path::Path, report: &RepairedFolder) -> anyhow::Result<()> {
    let written = || {
        let mut file = std::io::BufWriter::new(std::fs::File::create_new(path)?);
        for part in parts(report) {
            for id in part.dropped.iter().flat_map(|dropped| &dropped.ids) {
                writeln!(file, "{}", serde_json::json!({ "collection": part.name, "id": id }))?;
            }
        }
        file.flush()
    };
    written()
        .with_context(|| format!("cannot write the ids to {}; give a file that is not there", path.display()))
}

fn text(report: &RepairedFolder, out: &Output) -> String {
    let log = report.log.iter().map(|part| (part, "the log".to_owned()));
    let collections = report.collections.iter().map(|part| (part, format!("collection {}", part.name)));
    let mut parts: Vec<String> =
        log.chain(collections).map(|(part, name)| part_text(part, &name, report.applied, out)).collect();
    let is_repaired =
        report.log.iter().chain(&report.collections).any(|part| part.state == RepairState::Repaired);
    let end = match (&report.kept, is_repaired, report.applied) {
        (Some(kept), ..) => Some(format!("the damaged files are in {}", kept.display())),
        (None, true, false) => Some("nothing was changed; `distilface repair --yes` does it".to_owned()),
        _ if parts.is_empty() => Some("there are no collections".to_owned()),
        _ => None,
    };
    parts.extend(end.map(|end| layout::wrap_after("", &end, out.width(), LongWords::Keep)));
    parts.join("\n\n")
}

fn part_text(part: &RepairedPart, name: &str, applied: bool, out: &Output) -> String {
    let (state, style) = match (part.state, applied) {
        (RepairState::Whole, _) => ("nothing to repair", Style::Good),
        (RepairState::Repaired, true) => ("repaired", Style::Good),
        (RepairState::Repaired, false) => ("can be repaired", Style::Warn),
        (RepairState::Unrepairable, _) => ("cannot be repaired", Style::Bad),
    };
    let mut lines = vec![format!("{name}: {}", out.paint(style, state))];
    let mut line = |first: &str, text: &str| {
        lines.push(layout::wrap_after(first, text, out.width(), LongWords::Keep));
    };
    let drops = if applied { "dropped" } else { "would drop" };
    for Dropped { file, what, documents, ids } in &part.dropped {
        line(&format!("  {drops}: "), &format!("{}: {what}", file.display()));
        if documents.is_none() {
            line("    ", "how many documents that is nobody can tell");
        }
        if !ids.is_empty() {
            let more = ids.len().saturating_sub(IDS_PRINTED_MAX) as u64;
            let shown = ids.iter().take(IDS_PRINTED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if more == 0 {
                String::new()
            } else {
                format!(" and {} more; --ids FILE writes all", layout::thousands(more))
            };
            line("    ids: ", &format!("{shown}{more}"));
        }
    }
    for file in &part.files {
        line(if applied { "  moved away: " } else { "  would move away: " }, &file.display().to_string());
    }
    if let (Some(documents), RepairState::Repaired) = (part.documents, part.state) {
        let holds = if applied { "holds" } else { "would hold" };
        line("  ", &format!("{holds} {}", layout::counted(documents, "document")));
    }
    lines.extend(part.damages.iter().map(|damage| damage_text(None, damage, out)));
    lines.join("\n")
}
