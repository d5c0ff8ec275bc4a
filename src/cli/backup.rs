//! `distilface backup`: a copy of collections as of one moment, made by a running server or of a data folder.

use std::{path::Path, sync::Arc};

use serde_json::{Value as Json, json};

use super::{
    App,
    client::{Needs, OnInterrupt, Session, Target, open_engine, tell_findings, with_session},
    failure::usage,
    layout::{self, LongWords},
    output::{Output, Style},
    values,
};
use crate::{
    api::convert,
    config::NO_MODEL,
    engine::{self, BackupWish, Engine},
    proto::{Backup, CreateBackupRequest, CreateBackupResponse, ListBackupsRequest},
};

/// Make a backup of collections, while a server goes on or of a data folder
///
/// With --data, DEST is a new folder anywhere on this machine. A running server makes the backup in the folder that its
/// setting data.backups names, and DEST is the backup's name there. Everything that was acknowledged before is in it.
/// Files of segments get second names (hard links) in the backup where that is possible: it takes little room then, and
/// does not outlive the loss of the disk, so copy it elsewhere, and read the copy with `distilface verify DEST`.
#[derive(Debug, clap::Args)]
pub struct BackupArgs {
    /// The new folder; of a server, the name of the backup
    #[arg(value_name = "DEST", value_hint = clap::ValueHint::DirPath, required_unless_present = "list")]
    dest: Option<String>,
    /// Only this collection, or alias; again for more [default: all]
    #[arg(long, short, value_name = "NAME")]
    collection: Vec<String>,
    /// Copy every file, so that the backup shares nothing with the data folder
    #[arg(long)]
    copy: bool,
    /// List the backups of a server instead of making one
    #[arg(long, conflicts_with_all = ["dest", "collection", "copy"])]
    list: bool,
}

pub async fn run(app: &App, args: BackupArgs) -> anyhow::Result<()> {
    let Some(dest) = args.dest else { return list(app).await };
    let made = match &app.target {
        Target::Folder => {
            let wish = BackupWish { collections: args.collection, copy: args.copy };
            offline(app, async |engine| {
                let made = engine.back_up(Path::new(&dest), wish).await.map_err(crate::Error::from)?;
                Ok(CreateBackupResponse {
                    backup: Some(convert::backup_to(made.backup)),
                    linked_bytes: made.linked_bytes,
                    copied_bytes: made.copied_bytes,
                })
            })
            .await?
        }
        Target::Server { .. } => {
            check_name(&dest)?;
            let request = CreateBackupRequest { name: dest, collections: args.collection, copy: args.copy };
            let mut made = CreateBackupResponse::default();
            with_session(app, OnInterrupt::Stop, async |session: &Session| {
                made = session.backups().create(request).await?.into_inner();
                Ok(())
            })
            .await?;
            made
        }
    };
    let backup = made.backup.clone().unwrap_or_default();
    let mut answer = backup_json(&backup);
    answer["linked_bytes"] = made.linked_bytes.into();
    answer["copied_bytes"] = made.copied_bytes.into();
    app.out.result(&answer, |_| words(&app.out, &backup, made.linked_bytes))
}

/// Works on the data folder itself, without an encoder, and closes it whatever happens.
pub(super) async fn offline<T>(
    app: &App,
    work: impl AsyncFnOnce(&Arc<Engine>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut config = app.loaded.config.clone();
    if app.needs == Needs::There {
        engine::check_data_folder(&config.data.dir).map_err(crate::Error::from)?;
    }
    config.encoder.model = NO_MODEL.to_owned();
    let engine = app.unless_interrupted(open_engine(config, &app.out)).await?;
    let done = app.unless_interrupted(work(&engine)).await;
    let findings = engine.findings();
    let closed = engine.close().await.map_err(crate::Error::from);
    tell_findings(&findings, done.as_ref().err(), &app.out);
    let done = done?;
    closed?;
    Ok(done)
}

/// Refuses what looks like a path where a server is asked, which knows names alone.
pub(super) fn check_name(name: &str) -> anyhow::Result<()> {
    if name.contains(['/', '\\']) || name.starts_with('.') {
        return Err(usage(format!(
            "{name}: a server keeps its backups in its own folder (data.backups) and calls them by name; give a name, or a data folder with --data"
        )));
    }
    Ok(())
}

async fn list(app: &App) -> anyhow::Result<()> {
    if app.target == Target::Folder {
        return Err(usage("--list asks a server; with --data, look into the folder where your backups are"));
    }
    let out = &app.out;
    with_session(app, OnInterrupt::Stop, async |session: &Session| {
        let backups = session.backups().list(ListBackupsRequest {}).await?.into_inner().backups;
        if out.is_json() {
            return out.document(&backups.iter().map(backup_json).collect::<Vec<_>>());
        }
        if backups.is_empty() {
            out.note("no backups yet; `distilface backup NAME` makes one");
            return Ok(());
        }
        for backup in backups.iter().filter(|backup| !backup.damage.is_empty()) {
            out.warn(&format!("backup {} is damaged: {}", backup.name, backup.damage));
        }
        let rows: Vec<Vec<String>> = backups
            .iter()
            .map(|backup| {
                let documents = backup.collections.iter().map(|collection| collection.documents).sum();
                let made = backup.made_at.as_ref().map_or_else(|| "damaged".to_owned(), values::time);
                vec![
                    backup.name.clone(),
                    made,
                    layout::thousands(backup.collections.len() as u64),
                    layout::thousands(documents),
                    layout::bytes(backup.bytes),
                ]
            })
            .collect();
        out.line(&layout::table(
            &["name", "made", "#collections", "#documents", "#bytes"],
            &rows,
            out.width(),
        ))
    })
    .await
}

fn backup_json(backup: &Backup) -> Json {
    let collections = backup.collections.iter().map(|collection| {
        json!({
            "name": collection.name,
            "documents": collection.documents,
            "passages": collection.passages,
            "bytes": collection.bytes,
            "aliases": collection.aliases,
        })
    });
    json!({
        "name": backup.name,
        "folder": backup.folder,
        "made_at": backup.made_at.as_ref().map(values::time),
        "version": backup.version,
        "collections": collections.collect::<Vec<_>>(),
        "bytes": backup.bytes,
        "damage": (!backup.damage.is_empty()).then_some(&backup.damage),
    })
}

fn words(out: &Output, backup: &Backup, linked: u64) -> String {
    let rows: Vec<Vec<String>> = backup
        .collections
        .iter()
        .map(|collection| {
            vec![
                collection.name.clone(),
                layout::thousands(collection.documents),
                layout::thousands(collection.passages),
                layout::bytes(collection.bytes),
                collection.aliases.join(", "),
            ]
        })
        .collect();
    let mut parts = Vec::new();
    if !rows.is_empty() {
        let headers = ["collection", "#documents", "#passages", "#bytes", "aliases"];
        parts.push(layout::table(&headers, &rows, out.width()));
    }
    let made = format!("backed up to {}", backup.folder);
    parts.push(out.paint(Style::Good, &layout::wrap_after("", &made, out.width(), LongWords::Keep)));
    if linked > 0 {
        let note = format!(
            "{} of it are second names of the data folder's own files: change none of them, and copy the backup to another disk to have it when this one is lost",
            layout::bytes(linked)
        );
        parts.push(layout::wrap_after("note: ", &note, out.width(), LongWords::Keep));
    }
    parts.join("\n\n")
}
