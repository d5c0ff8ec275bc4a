//! `distilface model random`: a model of a given shape that was never trained.

use std::path::Path;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::model::{Architecture, ModelDir, RandomOptions};

/// A shape.
#[derive(Debug, clap::Args)]
pub(super) struct RandomArgs {
    /// Name of the new model
    name: String,
    /// Which encoder: bert or distilbert
    #[arg(long, value_parser = architecture())]
    architecture: Architecture,
    /// Transformer layers
    #[arg(long, value_name = "N")]
    layers: usize,
    /// Width of the vectors between layers
    #[arg(long, value_name = "N")]
    hidden: usize,
    /// Attention heads; they share out the width
    #[arg(long, value_name = "N")]
    heads: usize,
    /// Width inside the feed-forward layers [default: four times --hidden]
    #[arg(long, value_name = "N")]
    intermediate: Option<usize>,
    /// Installed model whose tokenizer and vocabulary it gets
    #[arg(long, value_name = "MODEL", default_value = "minilm-l6")]
    vocabulary_of: String,
    /// The same seed gives the same weights
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Replace a model of this name
    #[arg(long)]
    force: bool,
}

pub(super) fn make(home: &Path, args: RandomArgs) -> anyhow::Result<ModelDir> {
    let vocabulary = ModelDir::find(home, &args.vocabulary_of).map_err(crate::Error::from)?;
    let options = RandomOptions {
        name: args.name,
        architecture: args.architecture,
        layers: args.layers,
        hidden: args.hidden,
        heads: args.heads,
        intermediate: args.intermediate,
        seed: args.seed,
        force: args.force,
    };
    Ok(ModelDir::random(home, &vocabulary, &options).map_err(crate::Error::from)?)
}

fn architecture() -> impl TypedValueParser<Value = Architecture> {
    PossibleValuesParser::new(["bert", "distilbert"]).map(|name| match name.as_str() {
        "bert" => Architecture::Bert,
        _ => Architecture::Distilbert,
    })
}
