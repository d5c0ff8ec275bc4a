//! `distilface repair` makes damaged collections whole again with what can still be read. Without `--apply` it says what
//! that would drop.

use super::{
    App,
    failure::Stop,
    layout::{self, LongWords},
    output::{Output, Style},
    signals::stoppable,
    verify::damage_text,
};
use crate::engine::{self, Dropped, RepairState, RepairedFolder, RepairedPart};

/// Ids that are printed of one loss; `--json` has more.
const IDS_PRINTED_MAX: usize = 20;

/// Say what making damaged collections whole again would drop; do it with --apply
///
/// Keeps every document that can still be read, and moves damaged files, untouched, into the folder `damaged` of the
/// data folder. Collections that are whole are not touched. No server may have the folder open. Exits with 4 if
/// something is still damaged: always without --apply.
#[derive(Debug, clap::Args)]
pub struct RepairArgs {
    /// Collections [default: all that are damaged]
    #[arg(value_name = "COLLECTION")]
    collections: Vec<String>,
    /// Do it
    #[arg(long)]
    apply: bool,
}

/// Repairs or says what would be done, prints it, and fails if something stays damaged.
pub fn run(app: &App, args: &RepairArgs) -> anyhow::Result<()> {
    let dir = &app.loaded.config.data.dir;
    // A signal may end it anywhere: each collection is as it was then, or repaired.
    let report = stoppable(app, || {
        let stop = crate::stop::Stop::default();
        Ok(engine::repair_folder(dir, &args.collections, args.apply, &stop).map_err(crate::Error::from)?)
    })?;
    app.out.result(&report, |report| text(report, &app.out))?;
    let parts = || report.log.iter().chain(&report.collections);
    let is_whole = parts().all(|part| match part.state {
        RepairState::Whole => true,
        RepairState::Repaired => report.applied,
        RepairState::Unrepairable => false,
    });
    if is_whole { Ok(()) } else { Err(Stop::Damaged.into()) }
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
        (None, true, false) => Some("nothing was changed; `distilface repair --apply` does it".to_owned()),
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
            let more =
                if more == 0 { String::new() } else { format!(" and {} more", layout::thousands(more)) };
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
