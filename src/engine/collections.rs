//! Collections: made, described, counted, renamed and deleted.
//!
//! A wish ([`NewCollection`]) becomes a description ([`CollectionInfo`]) in which every default is filled in; the
//! catalogue keeps it, and every later call finds the collection by its name or an alias.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Engine, EngineError, apart, catalog::Names, error::Result, out_of_range};
use crate::{
    collection::CollectionStats,
    encoder::Chunking,
    index::{IndexParams, columns::FieldsRequest},
    model::Fingerprint,
    value::datetime,
    vector::{Dim, Metric},
};

/// Tokens of a passage where nothing else is asked for; less where the model takes less.
pub const CHUNK_TOKENS_DEFAULT: usize = 254;

/// What a collection is, as the description in its folder and the catalogue keep it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectionInfo {
    /// Its name; see [`NewCollection::name`].
    pub name: String,
    /// Values of one vector, 1 to [`crate::vector::DIM_MAX`].
    pub dimension: u32,
    /// How nearness is measured.
    pub metric: Metric,
    /// Parameters of its index.
    pub index: IndexParams,
    /// How its texts are cut into passages; `None` if chunking is off.
    pub chunking: Option<Chunking>,
    /// The model that encodes its texts; `None` if it takes vectors only.
    pub model: Option<CollectionModel>,
    /// When it was made, in microseconds since 1970.
    pub created_at: i64,
    /// Aliases that lead to it, by name. They are kept elsewhere and filled in for an answer.
    pub aliases: Vec<String>,
    /// Why it cannot be opened and what to do about it; every call on it is refused with this. Filled when answered.
    #[serde(skip)]
    pub damage: Option<String>,
}

/// The model that a collection was made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectionModel {
    /// Name of the model at that time.
    pub name: String,
    /// Identifies the model's vectors; a model with another fingerprint is refused.
    pub fingerprint: Fingerprint,
}

/// The settings of a new collection.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NewCollection {
    /// Its name: 1 to 128 letters, digits, `_`, `-` or `.`, beginning with a letter or digit. No default.
    pub name: String,
    /// Values of one vector, 1 to [`crate::vector::DIM_MAX`]. Default: the encoder's; required with
    /// `vectors_only`.
    pub dimension: Option<u32>,
    /// How nearness is measured. Default: [`Metric::default`].
    pub metric: Metric,
    /// Parameters of its index. Default: [`IndexParams::default`].
    pub index: IndexParams,
    /// Encodes each text as one passage, cut at the model's limit. Default: false.
    pub chunking_disabled: bool,
    /// Tokens of a passage, special tokens not counted. Default: [`CHUNK_TOKENS_DEFAULT`], or less where the
    /// model takes less.
    pub chunk_max_tokens: Option<usize>,
    /// Tokens shared with the passage before, below the maximum. Default: an eighth of the maximum.
    pub chunk_overlap_tokens: Option<usize>,
    /// Makes a collection without an encoder: every document and query brings its vector. Default: false.
    pub vectors_only: bool,
    /// Name of an installed model. Default: empty, which stands for the default model.
    pub model: String,
    /// Accepts an existing collection of the same settings instead of refusing it. Default: false.
    pub if_not_exists: bool,
}

/// What there is to count of all collections.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// Counts of every collection that is open now, by name: documents, passages and indexed passages.
    pub open: Vec<(String, CollectionStats)>,
    /// How many cannot be opened, as far as is known.
    pub damaged: usize,
}

impl Engine {
    /// Makes a collection; the flag says whether it is new.
    ///
    /// # Errors
    /// [`EngineError::BadName`], [`EngineError::CollectionExists`], [`EngineError::CollectionDiffers`],
    /// [`EngineError::AliasTaken`], [`EngineError::EncoderOff`], [`EngineError::OutOfRange`]; model, vector, index,
    /// store errors.
    pub async fn create_collection(&self, new: NewCollection) -> Result<(CollectionInfo, bool)> {
        let if_not_exists = new.if_not_exists;
        let info = self.plan_collection(new).await?;
        let names = Arc::clone(&self.names);
        apart(move || names.create(info, if_not_exists)).await?
    }

    async fn plan_collection(&self, new: NewCollection) -> Result<CollectionInfo> {
        self.check_open()?;
        new.index.validate()?;
        let (dimension, model, chunking) = if new.vectors_only {
            let reason = "a vectors_only collection needs its dimension".to_owned();
            let dimension = new.dimension.ok_or(EngineError::BadRequest { reason })?;
            if !new.model.is_empty() {
                let reason =
                    "a vectors_only collection has no encoder: leave model out, or vectors_only".to_owned();
                return Err(EngineError::BadRequest { reason });
            }
            (Dim::new(dimension)?, None, None)
        } else {
            let encoder = self.encoder_named(&new.model).await?;
            let dim = encoder.dim();
            if let Some(dimension) = new.dimension.filter(|&d| d != dim.as_u32()) {
                let reason = format!(
                    "dimension {dimension} was asked for, but model {} has {}; leave it out, or set vectors_only",
                    encoder.name(),
                    dim.as_u32()
                );
                return Err(EngineError::BadRequest { reason });
            }
            let model = CollectionModel {
                name: encoder.name().to_owned(),
                fingerprint: encoder.fingerprint().clone(),
            };
            let chunking = if new.chunking_disabled {
                None
            } else {
                let room = encoder.room();
                let max_tokens = new.chunk_max_tokens.unwrap_or(room.min(CHUNK_TOKENS_DEFAULT));
                if !(1..=room).contains(&max_tokens) {
                    return Err(out_of_range("chunking.max_tokens", 1, room, max_tokens));
                }
                let overlap_tokens = new.chunk_overlap_tokens.unwrap_or(max_tokens / 8);
                if overlap_tokens >= max_tokens {
                    return Err(out_of_range("chunking.overlap_tokens", 0, max_tokens - 1, overlap_tokens));
                }
                Some(Chunking { max_tokens, overlap_tokens })
            };
            (dim, Some(model), chunking)
        };
        Ok(CollectionInfo {
            name: new.name,
            dimension: dimension.as_u32(),
            metric: new.metric,
            index: new.index,
            chunking,
            model,
            created_at: datetime::now(),
            aliases: Vec::new(),
            damage: None,
        })
    }

    /// By name or alias, like every `collection` below.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`].
    pub async fn collection(&self, name: &str) -> Result<CollectionInfo> {
        self.check_open()?;
        let directory = self.names.now();
        Ok(directory.info(directory.find(name)?))
    }

    /// All collections, by name.
    ///
    /// # Errors
    /// [`EngineError::Closing`].
    pub async fn collections(&self) -> Result<Vec<CollectionInfo>> {
        self.check_open()?;
        let names = Arc::clone(&self.names);
        // There may be ten thousand.
        let infos = self.threads.work(move || {
            let directory = names.now();
            directory.collections.values().map(|open| directory.info(open)).collect()
        });
        Ok(infos.await?)
    }

    /// Removes a collection, its aliases and its files.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`], [`EngineError::BadRequest`] for an alias; store errors.
    pub async fn delete_collection(&self, name: &str) -> Result<()> {
        self.change(name, |names, name| names.delete(&name)).await
    }

    /// Points an alias at a collection, in one step for every later request; answers what it named before.
    ///
    /// # Errors
    /// [`EngineError::BadName`], [`EngineError::AliasTaken`], [`EngineError::NoCollection`]; store errors.
    pub async fn set_alias(&self, alias: &str, collection: &str) -> Result<Option<String>> {
        let alias = alias.to_owned();
        self.change(collection, move |names, collection| names.set_alias(&alias, &collection)).await
    }

    /// # Errors
    /// [`EngineError::NoAlias`]; store errors.
    pub async fn delete_alias(&self, alias: &str) -> Result<()> {
        self.change(alias, |names, alias| names.delete_alias(&alias)).await
    }

    async fn change<T: Send + 'static>(
        &self,
        name: &str,
        f: impl FnOnce(&Names, String) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.check_open()?;
        let (names, name) = (Arc::clone(&self.names), name.to_owned());
        apart(move || f(&names, name)).await?
    }

    /// What there is to count of all collections. Opens none, and touches no disk.
    ///
    /// # Errors
    /// [`EngineError::Threads`] if the pool that counts has ended.
    pub async fn counts(&self) -> Result<Counts> {
        let names = Arc::clone(&self.names);
        // A writer may hold what is counted for as long as a batch takes.
        let counts = self.threads.work(move || Counts {
            open: names.open_collections().into_iter().map(|(name, open)| (name, open.counts())).collect(),
            damaged: names.damaged(),
        });
        Ok(counts.await?)
    }

    /// # Errors
    /// [`EngineError::NoCollection`].
    pub async fn stats(&self, collection: &str, fields: FieldsRequest) -> Result<CollectionStats> {
        self.find(collection)?.stats(fields).await
    }

    /// Waits until every stored vector is in its graph. For benches and evaluation.
    ///
    /// # Errors
    /// [`EngineError::NoCollection`].
    pub async fn wait_indexed(&self, collection: &str) -> Result<()> {
        self.find(collection)?.wait_indexed().await
    }
}
