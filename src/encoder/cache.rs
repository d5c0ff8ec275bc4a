//! Caches keep embeddings so that they need not be computed again; the least recently used one is dropped first. One
//! cache holds repeated queries, the other the texts of large requests, which may run out of time before they are
//! answered.
//!
//! A cache belongs to one loaded model, so its fingerprint need not be part of the key. A query's key is the text
//! itself, so two texts are never mistaken for one. The key of a text of a large request is its SHA-256.
//! Texts that were only to be encoded are forgotten with their answer. Passages of documents are kept until newer ones
//! need their room, since their request may yet run out of time while it is written; once it is written, the documents
//! are recognised by their content's hash and do not come here again.

use std::{
    num::NonZero,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use lru::LruCache;
use sha2::{Digest, Sha256};

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

    /// The embeddings of all texts, or nothing.
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

/// Memory of [`UnfinishedCache`]: more than the passages of one request of 16 MiB in 384 dimensions.
const UNFINISHED_BYTES: usize = 64 << 20;

/// Bytes that an entry takes beside its values.
const ENTRY_BYTES: usize = 160;

type TextKey = (TextKind, [u8; 32]);

/// Embeddings of large requests, so that a request that ran out of time continues where it was when it is sent again.
#[derive(Debug)]
pub(super) struct UnfinishedCache {
    entries: Mutex<LruCache<TextKey, Embedding>>,
}

impl UnfinishedCache {
    /// Makes a cache for vectors of `dim` values.
    pub(super) fn new(dim: usize) -> Self {
        let capacity = UNFINISHED_BYTES / (dim * size_of::<f32>() + ENTRY_BYTES);
        UnfinishedCache {
            entries: Mutex::new(LruCache::new(NonZero::new(capacity).unwrap_or(NonZero::<usize>::MIN))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<TextKey, Embedding>> {
        // As above: it changes in single calls.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request of many texts: the vectors that it has so far are kept, also when it ends early.
#[derive(Debug)]
pub struct Unfinished {
    cache: Arc<UnfinishedCache>,
    keys: Mutex<Vec<TextKey>>,
    done: AtomicUsize,
}

impl Unfinished {
    pub(super) fn new(cache: Arc<UnfinishedCache>) -> Self {
        Unfinished { cache, keys: Mutex::default(), done: AtomicUsize::new(0) }
    }

    /// How many of its texts have a vector by now.
    pub fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Forgets what is kept for it: all of it was encoded, and nothing that may yet fail comes after.
    pub fn finish(&self) {
        let keys = std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner));
        let mut entries = self.cache.lock();
        for key in keys {
            entries.pop(&key);
        }
    }

    /// Adds some of its texts. Hashes them, so it is called where tokenizing is.
    pub(super) fn part(self: &Arc<Self>, kind: TextKind, texts: &[impl AsRef<str>]) -> UnfinishedPart {
        let keys: Vec<TextKey> =
            texts.iter().map(|text| (kind, Sha256::digest(text.as_ref().as_bytes()).into())).collect();
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).extend(&keys);
        UnfinishedPart { whole: Arc::clone(self), keys }
    }
}

/// Some texts of an [`Unfinished`] request, by their places.
#[derive(Debug)]
pub(super) struct UnfinishedPart {
    whole: Arc<Unfinished>,
    keys: Vec<TextKey>,
}

impl UnfinishedPart {
    /// What an earlier attempt made of the text at `place`.
    pub(super) fn get(&self, place: usize) -> Option<Embedding> {
        let known = self.whole.cache.lock().get(&self.keys[place]).cloned();
        if known.is_some() {
            self.whole.done.fetch_add(1, Ordering::Relaxed);
        }
        known
    }

    pub(super) fn put(&self, place: usize, embedding: &Embedding) {
        self.whole.done.fetch_add(1, Ordering::Relaxed);
        self.whole.cache.lock().put(self.keys[place], embedding.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedding(value: f32) -> Embedding {
        Embedding { values: vec![value], tokens: 3, ..Embedding::default() }
    }

    #[test]
    fn what_an_unfinished_request_has_is_kept_until_it_is_forgotten() {
        let cache = Arc::new(UnfinishedCache::new(1));
        let attempt = || Arc::new(Unfinished::new(Arc::clone(&cache)));
        let first = attempt();
        let part = first.part(TextKind::Document, &["a", "b"]);
        assert_eq!(part.get(0), None);
        part.put(1, &embedding(2.0));
        assert_eq!(first.done(), 1);
        drop((part, first));

        let second = attempt();
        assert_eq!(second.part(TextKind::Raw, &["b"]).get(0), None);
        let part = second.part(TextKind::Document, &["a", "b"]);
        assert_eq!((part.get(0), part.get(1)), (None, Some(embedding(2.0))));
        assert_eq!(second.done(), 1);
        second.finish();
        assert_eq!(attempt().part(TextKind::Document, &["b"]).get(0), None);
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
