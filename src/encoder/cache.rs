//! Embeddings of queries that were asked before, the least lately used going first.
//!
//! A cache belongs to one loaded model, so its fingerprint need not be part of the key. The key is the text itself: two
//! texts are never taken for one. Documents are not kept: unchanged ones are recognised by their content's hash before
//! they come here.

use std::{
    num::NonZero,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lru::LruCache;

use super::{Embedding, TextKind};

/// Longer texts are seldom asked twice and would make the bound on entries mean little.
const TEXT_BYTES_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct QueryCache {
    entries: Mutex<LruCache<(TextKind, Box<str>), Embedding>>,
}

impl QueryCache {
    /// `None` for a capacity of 0.
    pub(super) fn new(capacity: usize) -> Option<Self> {
        Some(QueryCache { entries: Mutex::new(LruCache::new(NonZero::new(capacity)?)) })
    }

    /// The embeddings of all of them, or nothing.
    pub(super) fn get(&self, kind: TextKind, texts: &[impl AsRef<str>]) -> Option<Vec<Embedding>> {
        let mut entries = self.lock();
        texts.iter().map(|text| entries.get(&(kind, text.as_ref().into())).cloned()).collect()
    }

    pub(super) fn put(&self, kind: TextKind, texts: &[String], embeddings: &[Embedding]) {
        let mut entries = self.lock();
        for (text, embedding) in texts.iter().zip(embeddings) {
            if text.len() <= TEXT_BYTES_MAX {
                entries.put((kind, text.as_str().into()), embedding.clone());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<(TextKind, Box<str>), Embedding>> {
        // A panic leaves the cache whole: it changes in single calls.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedding(value: f32) -> Embedding {
        Embedding { values: vec![value], tokens: 3, truncated: false }
    }

    #[test]
    fn what_was_used_least_lately_goes_first_and_kinds_are_kept_apart() {
        let cache = QueryCache::new(2).unwrap();
        cache.put(TextKind::Query, &["a".into(), "b".into()], &[embedding(1.0), embedding(2.0)]);
        assert_eq!(cache.get(TextKind::Query, &["b", "a"]), Some(vec![embedding(2.0), embedding(1.0)]));
        assert_eq!(cache.get(TextKind::Raw, &["a"]), None);
        cache.put(TextKind::Query, &["c".into()], &[embedding(3.0)]);
        assert_eq!(cache.get(TextKind::Query, &["b"]), None);
        assert_eq!(cache.get(TextKind::Query, &["a", "b"]), None);
        assert_eq!(cache.get(TextKind::Query, &["a", "c"]).unwrap().len(), 2);
    }

    #[test]
    fn a_capacity_of_none_and_a_long_text_keep_nothing() {
        assert!(QueryCache::new(0).is_none());
        let cache = QueryCache::new(2).unwrap();
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        cache.put(TextKind::Query, std::slice::from_ref(&long), &[embedding(1.0)]);
        assert_eq!(cache.get(TextKind::Query, &[long]), None);
    }
}
