//! Finds documents whose files are no longer in their folder: each ingest of a folder reports them, and `--prune`
//! removes them.
//!
//! A file that has another id now, by `--id-prefix`, counts as another one.
//! Only documents that came from the very folder that is ingested are looked at, and only if all of it could be searched.
//! Rows of tables and JSON lines are never among them: nothing says which file they came from.

use serde_json::json;

use super::{needs_yes, origin::Origins, reading::Files, tally::Tally};
use crate::cli::{App, layout, output::Output};

/// Ids that a person is shown before being asked.
const IDS_SHOWN: usize = 5;

/// Flags.
#[derive(Debug, clap::Args)]
pub struct PruneArgs {
    /// After the ingest, remove documents that came from the folders given and whose files are no longer there
    #[arg(long)]
    pub prune: bool,
    /// With --prune: store and remove nothing, only list what would be removed
    #[arg(long, requires = "prune")]
    pub dry_run: bool,
    /// With --prune: do not ask
    #[arg(long, short, requires = "prune")]
    pub yes: bool,
}

impl PruneArgs {
    /// # Errors
    /// Wrong use: `--prune` where nobody can be asked, and neither `--yes` nor `--dry-run`.
    pub fn check(&self, out: &Output) -> anyhow::Result<()> {
        if self.prune && !self.dry_run { needs_yes(out, self.yes) } else { Ok(()) }
    }
}

/// Lists what `--prune` would remove.
pub async fn show(out: &Output, origins: &mut Origins, files: &Files) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for folder in files.whole().folders() {
        let missing = origins.missing(&folder.path, files).await?;
        if refused(out, files, folder, missing.len() as u64) {
            continue;
        }
        all.extend(missing);
    }
    if out.is_json() {
        return out.document(&json!({ "would_remove": all }));
    }
    for id in &all {
        out.line(&layout::one_line(id))?;
    }
    let documents = layout::counted(all.len() as u64, "document");
    out.note(&format!("{documents} would be removed; nothing was stored or removed"));
    Ok(())
}

/// After an ingest that is done: removes, or tells of, documents that have lost their files.
pub(in crate::cli) async fn after(
    app: &App,
    args: &PruneArgs,
    origins: &mut Origins,
    files: &Files,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let out = &app.out;
    for folder in files.whole().folders() {
        let stored = tally.of_folder.get(&folder.path).copied().unwrap_or(0);
        // Nothing is listed where there are no more documents than were just stored.
        if origins.count_of(&folder.path).await.is_ok_and(|count| count == stored) {
            continue;
        }
        let missing = match origins.missing(&folder.path, files).await {
            Ok(missing) => missing,
            // Everything is stored; only what is no longer needed is not known.
            Err(status) if !args.prune => {
                out.warn(&format!(
                    "whether files of {} are gone is not known: {}",
                    folder.path,
                    status.message()
                ));
                continue;
            }
            Err(status) => return Err(status.into()),
        };
        if missing.is_empty() {
            continue;
        }
        let count = missing.len() as u64;
        tally.missing += count;
        if !args.prune {
            let documents = layout::counted(count, "document");
            let (belong, them) = if count == 1 { ("belongs", "it") } else { ("belong", "them") };
            out.note(&format!(
                "{documents} from {} {belong} to no file that is there now; --prune removes {them}",
                folder.path
            ));
            continue;
        }
        if refused(out, files, folder, count) {
            continue;
        }
        if !args.yes && app.confirm(&question(&folder.path, &missing)).await? != Some(true) {
            out.note("nothing was removed");
            continue;
        }
        tally.pruned += origins.delete(missing).await?;
    }
    Ok(())
}

fn question(folder: &str, missing: &[String]) -> String {
    let shown: Vec<String> = missing.iter().take(IDS_SHOWN).map(|id| layout::one_line(id)).collect();
    let more = if missing.len() > IDS_SHOWN { ", ..." } else { "" };
    format!(
        "Remove {} from {folder}, whose files are no longer there ({}{more})?",
        layout::counted(missing.len() as u64, "document"),
        shown.join(", ")
    )
}

/// Says why nothing of a folder may be removed, if so.
fn refused(out: &Output, files: &Files, folder: &crate::source::WalkedFolder, missing: u64) -> bool {
    if missing == 0 {
        return false;
    }
    let documents = layout::counted(missing, "document");
    let path = &folder.path;
    if !folder.complete {
        out.warn(&format!(
            "kept {documents} from {path}: not all of the folder could be searched, as told above"
        ));
        return true;
    }
    if files.whole().count(path) == 0 {
        out.warn(&format!(
            "kept {documents} from {path}: there is no file at all in it, as if it were not mounted; \
             if that is meant: distilface document delete --filter 'source_folder = \"{path}\"'"
        ));
        return true;
    }
    false
}
