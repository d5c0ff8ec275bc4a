//! Collections: made, described, counted, renamed and deleted.
//!
//! A wish ([`NewCollection`]) becomes a description ([`CollectionInfo`]) in which every default is filled in; the
//! catalogue keeps it, and every later call finds the collection by its name or an alias.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Engine, EngineError, NewCollection, catalog::Names, error::Result, out_of_range, run_blocking};
use crate::{
    collection::CollectionStats,
    encoder::{Chunking, Encoder},
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
    /// [`EngineError::NameIsAlias`], [`EngineError::EncoderOff`], [`EngineError::OutOfRange`]; model, vector, index,
    /// store errors.
    pub async fn create_collection(&self, new: NewCollection) -> Result<(CollectionInfo, bool)> {
        self.check_open()?;
        new.index.params().validate()?;
        if new.vectors_only && !new.model.is_empty() {
            let reason =
                "a vectors_only collection has no encoder: leave model out, or vectors_only".to_owned();
            return Err(EngineError::BadRequest { reason });
        }
        if let Some(info) = self.existing(&new).await? {
            return Ok((info, false));
        }
        let info = self.plan_collection(&new).await?;
        let names = Arc::clone(&self.names);
        match run_blocking(move || names.create(info)).await? {
            Ok(info) => Ok((info, true)),
            // Somebody else made it in the meantime.
            Err(exists @ EngineError::CollectionExists { .. }) => {
                self.existing(&new).await?.map(|info| (info, false)).ok_or(exists)
            }
            Err(error) => Err(error),
        }
    }

    /// The collection that is there already, where that is allowed.
    ///
    /// # Errors
    /// [`EngineError::CollectionDiffers`]; those of the model that is named.
    async fn existing(&self, new: &NewCollection) -> Result<Option<CollectionInfo>> {
        let directory = self.names.now();
        let Some(open) = directory.collections.get(&new.name).filter(|_| new.if_not_exists) else {
            return Ok(None);
        };
        let info = directory.info(open);
        let model = match &*new.model {
            "" => None,
            name => Some(model_of(&*self.encoder_named(name).await?)),
        };
        match new.difference(&info, model.as_ref()) {
            None => Ok(Some(info)),
            Some(difference) => Err(EngineError::CollectionDiffers { name: info.name, difference }),
        }
    }

    async fn plan_collection(&self, new: &NewCollection) -> Result<CollectionInfo> {
        let (dimension, model, chunking) = if new.vectors_only {
            let reason = "a vectors_only collection needs its dimension".to_owned();
            let dimension = new.dimension.ok_or(EngineError::BadRequest { reason })?;
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
            let model = model_of(&encoder);
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
            name: new.name.clone(),
            dimension: dimension.as_u32(),
            metric: new.metric.unwrap_or_default(),
            index: new.index.params(),
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
        run_blocking(move || f(&names, name)).await?
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

fn model_of(encoder: &Encoder) -> CollectionModel {
    CollectionModel { name: encoder.name().to_owned(), fingerprint: encoder.fingerprint().clone() }
}
