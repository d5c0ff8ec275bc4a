//! The wish for a collection, and where an existing collection departs from it.
//!
//! A setting that nobody named is `None`, empty or false here: a new collection gets its default, and an existing one
//! may have any value of it. So the same call makes a collection and later finds it, whatever became of the defaults.

use super::{CollectionInfo, CollectionModel};
use crate::{
    index::{IndexKind, IndexParams},
    vector::Metric,
};

/// The settings of a new collection.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NewCollection {
    /// Its name: 1 to 128 letters, digits, `_`, `-` or `.`, beginning with a letter or digit. No default.
    pub name: String,
    /// Values of one vector, 1 to [`crate::vector::DIM_MAX`]. Default: the encoder's; required with
    /// `vectors_only`.
    pub dimension: Option<u32>,
    /// How nearness is measured. Default: [`Metric::default`].
    pub metric: Option<Metric>,
    /// Parameters of its index. Default: [`IndexParams::default`].
    pub index: NewIndex,
    /// Encodes each text as one passage, cut at the model's limit. Default: false.
    pub chunking_disabled: bool,
    /// Tokens of a passage, special tokens not counted. Default: [`super::CHUNK_TOKENS_DEFAULT`], or less where the
    /// model takes less.
    pub chunk_max_tokens: Option<usize>,
    /// Tokens shared with the passage before, below the maximum. Default: an eighth of the maximum.
    pub chunk_overlap_tokens: Option<usize>,
    /// Makes a collection without an encoder: every document and query brings its vector. Default: false.
    pub vectors_only: bool,
    /// Name of an installed model. Default: empty, which stands for the default model.
    pub model: String,
    /// Accepts an existing collection that has every setting named here, instead of refusing it. Default: false.
    pub if_not_exists: bool,
}

/// The parameters of an index that are named; each default is that of [`IndexParams`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NewIndex {
    /// See [`IndexParams::kind`].
    pub kind: Option<IndexKind>,
    /// See [`IndexParams::m`].
    pub m: Option<u16>,
    /// See [`IndexParams::ef_construction`].
    pub ef_construction: Option<u16>,
    /// See [`IndexParams::ef_search`].
    pub ef_search: Option<u16>,
    /// See [`IndexParams::seed`].
    pub seed: Option<u64>,
}

impl NewIndex {
    /// With every default filled in.
    pub fn params(&self) -> IndexParams {
        let default = IndexParams::default();
        IndexParams {
            kind: self.kind.unwrap_or(default.kind),
            m: self.m.unwrap_or(default.m),
            ef_construction: self.ef_construction.unwrap_or(default.ef_construction),
            ef_search: self.ef_search.unwrap_or(default.ef_search),
            seed: self.seed.unwrap_or(default.seed),
        }
    }
}

impl NewCollection {
    /// The named settings in which `have` differs, in words; `None` if it agrees in all of them. `model` is the
    /// installed model that is named, if one is.
    pub(super) fn difference(
        &self,
        have: &CollectionInfo,
        model: Option<&CollectionModel>,
    ) -> Option<String> {
        let mut parts = Vec::new();
        let mut compare = |what: &str, have: &dyn std::fmt::Display, want: Option<&dyn std::fmt::Display>| {
            if let Some(want) = want.map(ToString::to_string).filter(|want| *want != have.to_string()) {
                parts.push(format!("{what} is {have}, not {want}"));
            }
        };
        fn named<T: std::fmt::Display>(value: &Option<T>) -> Option<&dyn std::fmt::Display> {
            value.as_ref().map(|value| value as &dyn std::fmt::Display)
        }
        compare("dimension", &have.dimension, named(&self.dimension));
        compare("metric", &metric_name(have.metric), named(&self.metric.map(metric_name)));
        compare("index kind", &kind_name(have.index.kind), named(&self.index.kind.map(kind_name)));
        compare("m", &have.index.m, named(&self.index.m));
        compare("ef_construction", &have.index.ef_construction, named(&self.index.ef_construction));
        compare("ef_search", &have.index.ef_search, named(&self.index.ef_search));
        compare("seed", &have.index.seed, named(&self.index.seed));
        let cut = have.chunking.filter(|_| !self.chunking_disabled);
        let off = || "off".to_owned();
        if self.chunking_disabled
            && let Some(chunking) = have.chunking
        {
            compare("chunking", &format!("{} tokens", chunking.max_tokens), named(&Some(off())));
        }
        let (tokens, overlap) = (cut.map(|c| c.max_tokens), cut.map(|c| c.overlap_tokens));
        let or_off = |count: Option<usize>| count.map_or_else(off, |count| count.to_string());
        compare("tokens of a passage", &or_off(tokens), named(&self.chunk_max_tokens));
        compare("tokens that passages share", &or_off(overlap), named(&self.chunk_overlap_tokens));
        if self.vectors_only
            && let Some(model) = &have.model
        {
            compare("model", &model.name, named(&Some("none (vectors only)")));
        }
        if let Some(want) =
            model.filter(|want| have.model.as_ref().is_none_or(|have| have.fingerprint != want.fingerprint))
        {
            let has = have.model.as_ref().map_or("none (vectors only)", |model| &model.name);
            // Of one name and yet different: the model was made anew since.
            let now = if has == want.name { " as it is now" } else { "" };
            compare("model", &has, named(&Some(format!("{}{now}", want.name))));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

fn metric_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Cosine => "cosine",
        Metric::Dot => "dot",
        Metric::Euclidean => "euclidean",
    }
}

fn kind_name(kind: IndexKind) -> &'static str {
    match kind {
        IndexKind::Flat => "flat",
        IndexKind::HnswRs => "hnsw_rs",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{encoder::Chunking, model::Fingerprint};

    fn model(name: &str, fingerprint: &str) -> CollectionModel {
        CollectionModel { name: name.into(), fingerprint: Fingerprint(fingerprint.into()) }
    }

    fn have() -> CollectionInfo {
        CollectionInfo {
            name: "a".into(),
            dimension: 384,
            metric: Metric::Dot,
            index: IndexParams { m: 8, ..IndexParams::default() },
            chunking: Some(Chunking { max_tokens: 128, overlap_tokens: 16 }),
            model: Some(model("big", "1")),
            created_at: 0,
            aliases: Vec::new(),
            damage: None,
        }
    }

    #[test]
    fn what_is_not_named_is_not_compared() {
        assert_eq!(NewCollection::default().difference(&have(), None), None);
        let named = NewCollection {
            dimension: Some(384),
            metric: Some(Metric::Dot),
            index: NewIndex { m: Some(8), ..NewIndex::default() },
            chunk_max_tokens: Some(128),
            ..NewCollection::default()
        };
        assert_eq!(named.difference(&have(), Some(&model("big", "1"))), None);
    }

    #[test]
    fn every_named_setting_is_compared_and_told_in_words() {
        let none = NewCollection::default;
        for (wish, told) in [
            (NewCollection { dimension: Some(32), ..none() }, "dimension is 384, not 32"),
            (NewCollection { metric: Some(Metric::Cosine), ..none() }, "metric is dot, not cosine"),
            (
                NewCollection { index: NewIndex { m: Some(16), ..NewIndex::default() }, ..none() },
                "m is 8, not 16",
            ),
            (
                NewCollection {
                    index: NewIndex { kind: Some(IndexKind::Flat), ..NewIndex::default() },
                    ..none()
                },
                "index kind is hnsw_rs, not flat",
            ),
            (NewCollection { chunking_disabled: true, ..none() }, "chunking is 128 tokens, not off"),
            (NewCollection { chunk_max_tokens: Some(64), ..none() }, "tokens of a passage is 128, not 64"),
            (
                NewCollection { chunk_overlap_tokens: Some(0), ..none() },
                "tokens that passages share is 16, not 0",
            ),
            (NewCollection { vectors_only: true, ..none() }, "model is big, not none (vectors only)"),
        ] {
            assert_eq!(wish.difference(&have(), None).unwrap(), told);
        }
        let off = CollectionInfo { chunking: None, ..have() };
        let wish = NewCollection { chunk_max_tokens: Some(64), ..none() };
        assert_eq!(wish.difference(&off, None).unwrap(), "tokens of a passage is off, not 64");
        let differs = |want| none().difference(&have(), Some(&want)).unwrap();
        assert_eq!(differs(model("small", "2")), "model is big, not small");
        assert_eq!(differs(model("big", "2")), "model is big, not big as it is now");
        let bare = CollectionInfo { model: None, ..have() };
        assert_eq!(
            none().difference(&bare, Some(&model("big", "1"))).unwrap(),
            "model is none (vectors only), not big"
        );
    }
}
