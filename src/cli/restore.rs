//! `distilface restore`: collections made of those in a backup, by a running server or in a data folder.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::{
    App,
    backup::{check_name, offline},
    client::{OnInterrupt, Session, Target, with_session},
    collection::collection_json,
    layout,
    output::Output,
};
use crate::{
    api::convert,
    engine::RestoreWish,
    proto::{RestoreBackupRequest, RestoreBackupResponse, RestoredCollection},
};

/// Make collections of those in a backup
///
/// With --data, BACKUP is a folder that `distilface backup` made, wherever it lies now. A running server looks for it in the
/// folder that its setting data.backups names, and BACKUP is its name there. Every file is compared with what the backup
/// says of it before a collection can be seen; nothing that is there is replaced.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// The backup: a folder, or a server's name for it
    #[arg(value_name = "BACKUP", value_hint = clap::ValueHint::DirPath)]
    backup: String,
    /// Only this collection, by its name in the backup [default: all]
    #[arg(long, short, value_name = "NAME")]
    collection: Option<String>,
    /// A new name for the collection [default: the one that it had]
    #[arg(long = "as", value_name = "NAME")]
    rename: Option<String>,
    /// Point the aliases that it had at it; refused if one leads to another collection
    #[arg(long)]
    aliases: bool,
}

pub async fn run(app: &App, args: RestoreArgs) -> anyhow::Result<()> {
    let RestoreArgs { backup, collection, rename, aliases } = args;
    let answer = match &app.target {
        Target::Folder => {
            let wish = RestoreWish { collection, rename, aliases };
            offline(app, async |engine| {
                let restored = engine.restore(Path::new(&backup), wish).await.map_err(crate::Error::from)?;
                let collections = restored.into_iter().map(convert::restored_to).collect();
                Ok(RestoreBackupResponse { collections })
            })
            .await?
        }
        Target::Server { .. } => {
            check_name(&backup)?;
            let request = RestoreBackupRequest {
                name: backup,
                collection: collection.unwrap_or_default(),
                rename: rename.unwrap_or_default(),
                aliases,
            };
            let mut answer = RestoreBackupResponse::default();
            with_session(app, OnInterrupt::Stop, async |session: &Session| {
                answer = session.backups().restore(request).await?.into_inner();
                Ok(())
            })
            .await?;
            answer
        }
    };
    let out = &app.out;
    for restored in &answer.collections {
        if !restored.missing_model.is_empty() {
            out.warn(&restored.missing_model);
        }
        if !restored.aliases_left.is_empty() {
            let name = name_of(restored);
            out.note(&format!(
                "aliases that were not restored (--aliases does it): {}; `distilface collection alias ALIAS {name}` sets one",
                restored.aliases_left.join(", ")
            ));
        }
    }
    let json: Vec<Json> = answer.collections.iter().map(restored_json).collect();
    out.result(&json, |_| words(out, &answer.collections))
}

fn name_of(restored: &RestoredCollection) -> &str {
    let config = restored.collection.as_ref().and_then(|collection| collection.config.as_ref());
    config.map_or("", |config| &config.name)
}

fn restored_json(restored: &RestoredCollection) -> Json {
    json!({
        "collection": restored.collection.as_ref().map(collection_json),
        "from": restored.source,
        "documents": restored.documents,
        "passages": restored.passages,
        "aliases_left": restored.aliases_left,
        "missing_model": (!restored.missing_model.is_empty()).then_some(&restored.missing_model),
    })
}

fn words(out: &Output, collections: &[RestoredCollection]) -> String {
    let rows: Vec<Vec<String>> = collections
        .iter()
        .map(|restored| {
            let aliases = restored.collection.as_ref().map_or(&[][..], |collection| &collection.aliases);
            vec![
                name_of(restored).to_owned(),
                restored.source.clone(),
                layout::thousands(restored.documents),
                layout::thousands(restored.passages),
                aliases.join(", "),
            ]
        })
        .collect();
    layout::table(&["restored", "from", "#documents", "#passages", "aliases"], &rows, out.width())
}
