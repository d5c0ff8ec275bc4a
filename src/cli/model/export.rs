//! `distilface model export`: a model as a Hugging Face folder.

use std::path::{Path, PathBuf};

use crate::{
    cli::{layout, output::Output},
    model::ModelDir,
};

/// Which model, and where to.
#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// Name or path of the model
    name: String,
    /// Folder to make; it must not exist, or be empty
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    to: PathBuf,
    /// Replace a folder that was exported before
    #[arg(long)]
    force: bool,
}

pub(super) fn run(out: &Output, home: &Path, args: &ExportArgs) -> anyhow::Result<()> {
    let model = ModelDir::find(home, &args.name).map_err(crate::Error::from)?;
    let export = model.export(&args.to, args.force).map_err(crate::Error::from)?;
    if !export.sentence_transformers {
        out.warn(&format!(
            "sentence-transformers cannot express the pooling {}, so no modules.json was written: opened there, the \
             model would make other vectors; transformers opens it, and `distilface model import` makes the same \
             model of it",
            model.manifest.pooling.name()
        ));
    }
    out.result(&export, |export| {
        let opens = if export.sentence_transformers {
            "transformers, sentence-transformers, distilface"
        } else {
            "transformers (pooling by hand), distilface"
        };
        let pairs = [
            ("folder", export.path.display().to_string()),
            ("files", export.files.join(", ")),
            ("opens in", opens.to_owned()),
            ("fingerprint", model.fingerprint.0.clone()),
        ];
        layout::pairs(&pairs, out.width())
    })
}
