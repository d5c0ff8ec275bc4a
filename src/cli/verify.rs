//! `distilface verify` reads everything in a data folder, or in a backup, and says what is damaged, where, and what to do about it.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    App,
    failure::Stop,
    layout::{self, LongWords},
    output::{Output, Style},
    signals::stoppable,
};
use crate::{
    engine::{self, EngineError, FoundDamage, VerifiedBackup, VerifiedCollection, VerifiedFolder},
    value::datetime,
};

/// How often it is shown how far the reading is.
const SHOWN_EVERY: Duration = Duration::from_millis(100);

/// Read everything in a data folder, or in a backup, and say what is damaged
///
/// Reads the log, every segment and every description, byte by byte, compares them with each other and with the
/// catalogue, and changes nothing. No server may have the data folder open. Of a backup every file is compared with its
/// length and SHA-256, and every section of every segment is read. Exits with 4 if something is damaged or missing.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// A backup, which is a folder that `distilface backup` made [default: the data folder]
    #[arg(value_name = "BACKUP", value_hint = clap::ValueHint::DirPath)]
    backup: Option<PathBuf>,
}

/// Reads, prints, and fails if something is damaged.
pub fn run(app: &App, args: &VerifyArgs) -> anyhow::Result<()> {
    let dir = &app.loaded.config.data.dir;
    // Whoever names a backup as the data folder means the backup.
    if let Some(backup) = args.backup.as_ref().or_else(|| engine::is_backup(dir).then_some(dir)) {
        let report = stoppable(app, || {
            read(&app.out, |progress| engine::verify_backup(backup, &crate::stop::Stop::default(), progress))
        })?;
        app.out.result(&report, |report| backup_text(report, &app.out))?;
        return if report.whole { Ok(()) } else { Err(Stop::DamagedBackup.into()) };
    }
    let report = stoppable(app, || {
        read(&app.out, |progress| engine::verify_folder(dir, &crate::stop::Stop::default(), progress))
    })?;
    app.out.result(&report, |report| text(report, &app.out))?;
    if report.whole { Ok(()) } else { Err(Stop::Damaged.into()) }
}

/// Reads on another thread, so that this one can show how far it is.
fn read<T: Send>(
    out: &Output,
    work: impl FnOnce(Box<dyn Fn(u64, u64) + Send + Sync>) -> Result<T, EngineError> + Send,
) -> anyhow::Result<T> {
    let far = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let told = Arc::clone(&far);
    let progress = move |read, total| {
        told.0.store(read, Ordering::Relaxed);
        told.1.store(total, Ordering::Relaxed);
    };
    let mut bar = out.progress("reading", None);
    let shower = std::thread::current();
    let report = std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let report = work(Box::new(progress));
            shower.unpark();
            report
        });
        while !reader.is_finished() {
            std::thread::park_timeout(SHOWN_EVERY);
            let (read, total) = (far.0.load(Ordering::Relaxed), far.1.load(Ordering::Relaxed));
            bar.set_total(total);
            bar.set(read, &format!("{} of {}", layout::bytes(read), layout::bytes(total)));
        }
        reader.join().map_err(|_| anyhow::anyhow!("reading ended by a panic; this is a bug"))
    });
    drop(bar);
    Ok(report?.map_err(crate::Error::from)?)
}

fn text(report: &VerifiedFolder, out: &Output) -> String {
    let mut parts = Vec::new();
    if !report.collections.is_empty() {
        let headers = ["collection", "#documents", "#passages", "#segments", "#read", "state"];
        let rows: Vec<Vec<String>> =
            report.collections.iter().map(|collection| row(collection, out)).collect();
        parts.push(layout::table(&headers, &rows, out.width()));
    }
    let log = format!(
        "{} in {}, {} read",
        layout::counted_as(report.log_entries, "entry", "entries"),
        layout::counted(report.log_files, "file"),
        layout::bytes(report.log_bytes)
    );
    parts.push(layout::wrap_after("log: ", &log, out.width(), LongWords::Keep));
    let of_collections = report.collections.iter().flat_map(|collection| {
        collection.damages.iter().map(|damage| (Some(collection.name.as_str()), damage))
    });
    let damages: Vec<_> = report.damages.iter().map(|damage| (None, damage)).chain(of_collections).collect();
    parts.extend(damages.iter().map(|(collection, damage)| damage_text(*collection, damage, out)));
    parts.extend(
        report.notes.iter().map(|note| layout::wrap_after("note: ", note, out.width(), LongWords::Keep)),
    );
    parts.push(match damages.len() as u64 {
        0 => out.paint(Style::Good, "everything is whole"),
        count => out.paint(Style::Bad, &format!("damaged in {}", layout::counted(count, "place"))),
    });
    parts.join("\n\n")
}

fn backup_text(report: &VerifiedBackup, out: &Output) -> String {
    let mut parts = Vec::new();
    if !report.collections.is_empty() {
        let headers = ["collection", "#documents", "#passages", "#segments", "#read", "state"];
        let rows: Vec<Vec<String>> =
            report.collections.iter().map(|collection| row(collection, out)).collect();
        parts.push(layout::table(&headers, &rows, out.width()));
    }
    if let (Some(made_at), Some(version)) = (report.made_at, &report.version) {
        parts.push(format!("made at {} by distilface {version}", datetime::format(made_at)));
    }
    let of_collections = report.collections.iter().flat_map(|collection| {
        collection.damages.iter().map(|damage| (Some(collection.name.as_str()), damage))
    });
    let damages: Vec<_> = report.damages.iter().map(|damage| (None, damage)).chain(of_collections).collect();
    parts.extend(damages.iter().map(|(collection, damage)| damage_text(*collection, damage, out)));
    parts.extend(
        report.notes.iter().map(|note| layout::wrap_after("note: ", note, out.width(), LongWords::Keep)),
    );
    parts.push(match damages.len() as u64 {
        0 => out.paint(Style::Good, "the backup is whole"),
        count => out.paint(Style::Bad, &format!("damaged in {}", layout::counted(count, "place"))),
    });
    parts.join("\n\n")
}

fn row(collection: &VerifiedCollection, out: &Output) -> Vec<String> {
    let state =
        if collection.whole { out.paint(Style::Good, "ok") } else { out.paint(Style::Bad, "damaged") };
    vec![
        collection.name.clone(),
        layout::thousands(collection.documents),
        layout::thousands(collection.passages),
        layout::thousands(collection.segments),
        layout::bytes(collection.bytes),
        state,
    ]
}

/// A damage in a paragraph.
pub(super) fn damage_text(collection: Option<&str>, damage: &FoundDamage, out: &Output) -> String {
    let FoundDamage { file, offset, reason, remedy, .. } = damage;
    let of = collection.map(|name| format!("collection {name}: ")).unwrap_or_default();
    let place = offset.map(|offset| format!(", byte {offset}")).unwrap_or_default();
    let what = format!("{of}{}{place}: {reason}", file.display());
    let label = "damaged: ";
    let what = layout::wrap_after(label, &what, out.width(), LongWords::Keep);
    let what = what.replacen(label, &out.paint(Style::Bad, label), 1);
    format!("{what}\n{}", layout::wrap_after("  remedy: ", remedy, out.width(), LongWords::Keep))
}
