//! Documents with their vectors, as one durable unit each: the storage of one collection.
//!
//! What a document's head means is the collection's business; here it is bytes.
//! Nothing outside `store` knows what lies below: a log with segments can take its place behind the same calls.
//!
//! A removed document is first *buried*: the batch marks it as gone, so a restart forgets it, but its bytes stay
//! readable for those who are just answering with it, until a later batch purges them.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::random::SplitMix;

use super::{
    StoreError,
    acknowledged::{self, Acknowledged, Found, Proof},
    disk::Disk,
    record::{decode, decode_vectors, encode, encode_vectors},
    state::{Changes, State, TOTALS_KEY},
};

/// Version of the layout that `FORMAT.md` describes.
pub(crate) const STORE_FORMAT: u32 = 2;

/// The last format that has no file of what was acknowledged.
const FORMAT_WITHOUT_PROOF: u32 = 1;

const FORMAT_KEY: &[u8] = b"f";
const SPEC_KEY: &[u8] = b"s";
const HEAD: u8 = b'd';
const TEXT: u8 = b't';
const VECTORS: u8 = b'v';
const BURIED: u8 = b'x';

/// zstd level of texts: above it, sentences get little smaller and much slower.
const TEXT_LEVEL: i32 = 3;

/// Storage of one collection. Reads from any thread; one writer.
#[derive(Debug)]
pub(crate) struct Store {
    state: State,
    totals: Mutex<Totals>,
    acknowledged: Acknowledged,
    /// The batch that found no room, until it is known not to be stored.
    refused: Mutex<Option<Refused>>,
    /// Somebody accepted, by hand, that the store holds less than was acknowledged.
    accepted: bool,
}

/// Written with every batch and compared with what is found at the next start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Totals {
    /// Counts batches.
    sequence: u64,
    documents: u64,
    passages: u64,
    /// Sum over all documents, modulo 2^64; see [`digest`].
    digest: u64,
    /// Every document number given out is below.
    next_doc: u32,
    /// Every vector number given out is below.
    next_vector: u32,
}

impl Totals {
    fn proof(&self) -> Proof {
        let Totals { sequence, documents, passages, digest, .. } = *self;
        Proof { sequence, documents, passages, digest }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredHead {
    body: Vec<u8>,
    first_vector: u32,
    passages: u32,
    vectors_crc: u32,
    /// Bytes of the text, not compressed; 0: there is no text record.
    text_bytes: u64,
    text_crc: u32,
}

/// What is stored of a document apart from text and vectors.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// As the collection gave it.
    pub(crate) body: Vec<u8>,
    /// Number of its first vector; the others follow.
    pub(crate) first_vector: u32,
    /// How many vectors it has.
    pub(crate) passages: u32,
    crc: u32,
    vectors_crc: u32,
    text_bytes: u64,
    text_crc: u32,
}

impl Head {
    /// Bytes of the document's text, which need not be read to know it.
    pub(crate) fn text_bytes(&self) -> usize {
        usize::try_from(self.text_bytes).unwrap_or(usize::MAX)
    }
}

/// A document that [`Store::load`] found.
pub(crate) struct Loaded {
    pub(crate) doc: u32,
    pub(crate) head: Head,
    /// All its vectors, one after the other.
    pub(crate) vectors: Vec<f32>,
}

/// Changes that are committed together.
#[derive(Debug, Default)]
pub(crate) struct StoreBatch {
    changes: Changes,
    put: Vec<Entry>,
    buried: Vec<Entry>,
}

/// What a batch that found no room would have done.
#[derive(Debug)]
struct Refused {
    put: Vec<u32>,
    buried: Vec<u32>,
}

/// What a document adds to the totals.
#[derive(Debug, Clone, Copy)]
struct Entry {
    doc: u32,
    first_vector: u32,
    passages: u32,
    digest: u64,
}

/// What position-free sums are made of: every document counts with its number and its checksums, well mixed
/// (by SplitMix64; part of the format), so that no lost, doubled or exchanged document goes unseen.
fn digest(doc: u32, head_crc: u32) -> u64 {
    SplitMix(u64::from(doc) << 32 | u64::from(head_crc)).next()
}

fn key(kind: u8, doc: u32) -> [u8; 5] {
    let [a, b, c, d] = doc.to_be_bytes();
    [kind, a, b, c, d]
}

/// The format, unless a later version wrote it.
pub(super) fn check_format(bytes: &[u8], supported: u32, dir: &Path) -> Result<u32, StoreError> {
    let got = <[u8; 4]>::try_from(bytes)
        .map(u32::from_le_bytes)
        .map_err(|_| StoreError::corrupt(dir, "its format cannot be read".into()))?;
    match got {
        got if got > supported => Err(StoreError::NewerFormat { path: dir.to_owned(), got, supported }),
        0 => Err(StoreError::corrupt(dir, "its format is 0".into())),
        got => Ok(got),
    }
}

impl StoreBatch {
    /// Adds a document under a number never used before, its vectors under `first_vector` and the numbers that follow,
    /// never used before either.
    pub(crate) fn put<'a>(
        &mut self,
        doc: u32,
        first_vector: u32,
        body: Vec<u8>,
        text: &str,
        vectors: impl ExactSizeIterator<Item = &'a [f32]>,
    ) {
        self.changes.grow();
        let passages = u32::try_from(vectors.len()).expect("a text of 4 GiB is never taken");
        let vectors_crc = self.changes.put(&key(VECTORS, doc), &encode_vectors(vectors));
        let text_crc = if text.is_empty() {
            0
        } else {
            let packed = zstd::bulk::compress(text.as_bytes(), TEXT_LEVEL)
                .expect("zstd fails only for want of memory or room, and the room is made to measure");
            self.changes.put(&key(TEXT, doc), &packed)
        };
        let head =
            StoredHead { body, first_vector, passages, vectors_crc, text_bytes: text.len() as u64, text_crc };
        let crc = self.changes.put(&key(HEAD, doc), &encode(&head));
        self.put.push(Entry { doc, first_vector, passages, digest: digest(doc, crc) });
    }

    /// Marks a document as gone.
    pub(crate) fn bury(&mut self, doc: u32, head: &Head) {
        self.changes.put(&key(BURIED, doc), &[]);
        self.buried.push(Entry {
            doc,
            first_vector: head.first_vector,
            passages: head.passages,
            digest: digest(doc, head.crc),
        });
    }

    /// Takes back the space of a document buried in an earlier batch.
    pub(crate) fn purge(&mut self, doc: u32, store: &Store) -> Result<(), StoreError> {
        for kind in [HEAD, TEXT, VECTORS, BURIED] {
            store.state.remove(&mut self.changes, &key(kind, doc))?;
        }
        Ok(())
    }

    /// Whether there is nothing to commit.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl Store {
    /// Makes a new store in `dir`, and the file of what is acknowledged beside it. `spec` is kept with it.
    pub(crate) fn create<T: Serialize>(
        dir: &Path,
        spec: &T,
        cache_bytes: u64,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, StoreError> {
        let totals = Totals::default();
        let state = State::create(dir, cache_bytes, Arc::clone(&disk))?;
        let acknowledged = Acknowledged::create(&acknowledged::path_of(dir), totals.proof(), disk)?;
        let mut changes = Changes::default();
        changes.grow();
        changes.put(FORMAT_KEY, &STORE_FORMAT.to_le_bytes());
        changes.put(SPEC_KEY, &encode(spec));
        changes.put(TOTALS_KEY, &encode(&totals));
        state.commit(changes)?;
        Ok(Store {
            state,
            totals: Mutex::new(totals),
            acknowledged,
            refused: Mutex::default(),
            accepted: false,
        })
    }

    /// Opens a store. One of format 1 gets the file of what is acknowledged.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::NewerFormat`], [`StoreError::Io`]; [`StoreError::Corrupt`], also if it
    /// holds less than was acknowledged.
    pub(crate) fn open(dir: &Path, cache_bytes: u64, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        let path = acknowledged::path_of(dir);
        let found = Acknowledged::find(&path, Arc::clone(&disk))?;
        let state = State::open(dir, cache_bytes, Arc::clone(&disk))?;
        let format = check_format(&required(&state, FORMAT_KEY, "its format")?, STORE_FORMAT, dir)?;
        let totals: Totals = decode(&required(&state, TOTALS_KEY, "its totals")?, dir, "its totals")?;
        let accepted = matches!(found, Found::Accepted);
        let acknowledged = match found {
            Found::Proof(acknowledged, proof) => {
                check_proof(&totals, proof, dir, acknowledged.path())?;
                acknowledged
            }
            Found::Missing if format > FORMAT_WITHOUT_PROOF => {
                let reason = format!(
                    "it is missing, so nobody can tell whether the {} documents that {} holds are all; {}",
                    totals.documents,
                    dir.display(),
                    acknowledged::remedy(&path)
                );
                return Err(StoreError::corrupt(&path, reason));
            }
            Found::Missing => Acknowledged::create(&path, totals.proof(), disk)?,
            Found::Accepted => {
                let documents = totals.documents;
                tracing::warn!(dir = %dir.display(), documents, "what the store holds was accepted by hand");
                Acknowledged::create(&path, totals.proof(), disk)?
            }
        };
        if format < STORE_FORMAT {
            let mut changes = Changes::default();
            changes.put(FORMAT_KEY, &STORE_FORMAT.to_le_bytes());
            state.commit(changes)?;
        }
        Ok(Store { state, totals: Mutex::new(totals), acknowledged, refused: Mutex::default(), accepted })
    }

    /// Whether somebody accepted by hand, before this opening, that documents are lost.
    pub(crate) fn accepted(&self) -> bool {
        self.accepted
    }

    /// The refusal of a store when something else, at `path`, is of a later state of it.
    pub(crate) fn behind(&self, path: &Path, sequence: u64) -> StoreError {
        let totals = self.totals().clone();
        let reason = format!(
            "it ends at batch {} with {} documents, but {} was saved after batch {sequence}; {}",
            totals.sequence,
            totals.documents,
            path.display(),
            acknowledged::remedy(self.acknowledged.path())
        );
        StoreError::corrupt(self.state.dir(), reason)
    }

    /// What [`Store::create`] was given.
    pub(crate) fn spec<T: serde::de::DeserializeOwned>(&self) -> Result<T, StoreError> {
        decode(&required(&self.state, SPEC_KEY, "its description")?, self.state.dir(), "its description")
    }

    /// Its folder.
    pub(crate) fn dir(&self) -> &Path {
        self.state.dir()
    }

    /// Why nothing can be written: for good, or until there is room again.
    pub(crate) fn failed(&self) -> Option<String> {
        self.state.failed()
    }

    /// Opens it again after a write that found no room, if there is room now.
    pub(crate) fn revive(&self) {
        // What stays wrong, [`Store::failed`] says.
        let _ = self.state.revive();
    }

    /// The lowest document number never given out.
    pub(crate) fn next_doc(&self) -> u32 {
        self.totals().next_doc
    }

    /// The lowest vector number never given out.
    pub(crate) fn next_vector(&self) -> u32 {
        self.totals().next_vector
    }

    /// Batches committed so far.
    pub(crate) fn sequence(&self) -> u64 {
        self.totals().sequence
    }

    fn totals(&self) -> std::sync::MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes all changes of a batch, or none, and returns when they are on the device.
    ///
    /// # Errors
    /// As [`State::commit`].
    pub(crate) fn commit(&self, batch: StoreBatch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.take_back_refused()?;
        let mut totals = self.totals().clone();
        totals.sequence += 1;
        for &Entry { doc, first_vector, passages, digest } in &batch.put {
            totals.documents += 1;
            totals.passages += u64::from(passages);
            totals.digest = totals.digest.wrapping_add(digest);
            totals.next_doc = totals.next_doc.max(doc + 1);
            totals.next_vector = totals.next_vector.max(first_vector + passages);
        }
        for &Entry { passages, digest, .. } in &batch.buried {
            totals.documents -= 1;
            totals.passages -= u64::from(passages);
            totals.digest = totals.digest.wrapping_sub(digest);
        }
        let docs = |entries: &[Entry]| entries.iter().map(|entry| entry.doc).collect();
        let refused = Refused { put: docs(&batch.put), buried: docs(&batch.buried) };
        let committed = self.commit_changes(batch.changes, totals);
        if committed.as_ref().is_err_and(StoreError::is_passing) && self.state.is_unsettled() {
            *self.refused() = Some(refused);
        }
        committed
    }

    /// Takes back a batch that found no room, if it was stored all the same: the caller told everybody that it was not.
    fn take_back_refused(&self) -> Result<(), StoreError> {
        let mut place = self.refused();
        let Some(refused) = &*place else { return Ok(()) };
        self.state.revive()?;
        if self.state.late() {
            tracing::warn!(dir = %self.state.dir().display(), "a write that was refused was stored all the same; it is taken back");
            let mut changes = Changes::default();
            for doc in &refused.put {
                for kind in [HEAD, TEXT, VECTORS] {
                    self.state.remove(&mut changes, &key(kind, *doc))?;
                }
            }
            for doc in &refused.buried {
                self.state.remove(&mut changes, &key(BURIED, *doc))?;
            }
            let mut totals = self.totals().clone();
            // One for the batch, one for taking it back.
            totals.sequence += 2;
            self.commit_changes(changes, totals)?;
        }
        *place = None;
        Ok(())
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, Option<Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit_changes(&self, mut changes: Changes, totals: Totals) -> Result<(), StoreError> {
        changes.put(TOTALS_KEY, &encode(&totals));
        self.state.commit(changes)?;
        // After the store, so that the file never says more than there is; before the answer, so never less.
        if let Err(error) = self.acknowledged.write(totals.proof()) {
            self.state.fail(&error);
            return Err(error);
        }
        *self.totals() = totals;
        Ok(())
    }

    /// The head of a document, buried or not.
    pub(crate) fn head(&self, doc: u32) -> Result<Option<Head>, StoreError> {
        match self.state.get(&key(HEAD, doc))? {
            Some((bytes, crc)) => Ok(Some(self.decode_head(&bytes, crc)?)),
            None => Ok(None),
        }
    }

    fn decode_head(&self, bytes: &[u8], crc: u32) -> Result<Head, StoreError> {
        let StoredHead { body, first_vector, passages, vectors_crc, text_bytes, text_crc } =
            decode(bytes, self.state.dir(), "a document")?;
        Ok(Head { body, first_vector, passages, crc, vectors_crc, text_bytes, text_crc })
    }

    /// The text of a document whose head was read.
    pub(crate) fn text(&self, doc: u32, head: &Head) -> Result<String, StoreError> {
        if head.text_bytes == 0 {
            return Ok(String::new());
        }
        let damaged = || StoreError::corrupt(self.state.dir(), format!("the text of document {doc} is lost"));
        let (packed, crc) = self.state.get(&key(TEXT, doc))?.ok_or_else(damaged)?;
        if crc != head.text_crc {
            return Err(damaged());
        }
        let len = usize::try_from(head.text_bytes).map_err(|_| damaged())?;
        let text = zstd::bulk::decompress(&packed, len).map_err(|_| damaged())?;
        String::from_utf8(text).map_err(|_| damaged())
    }

    /// Reads everything but the texts, in the order of the document numbers, and checks it against the totals.
    /// Returns the numbers of buried documents, whose space is to be purged.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], also if anything is missing or too much; whatever `each` returns.
    pub(crate) fn load<E: From<StoreError>>(
        &self,
        mut each: impl FnMut(Loaded) -> Result<(), E>,
    ) -> Result<Vec<u32>, E> {
        let mut buried = HashSet::new();
        for entry in self.state.scan(&[BURIED])? {
            buried.insert(self.doc_of(&entry?.0)?);
        }
        let mut found = Totals::default();
        let mut all_vectors = self.state.scan(&[VECTORS])?;
        for entry in self.state.scan(&[HEAD])? {
            let (head_key, bytes, crc) = entry?;
            let doc = self.doc_of(&head_key)?;
            let head = self.decode_head(&bytes, crc)?;
            let lost =
                || StoreError::corrupt(self.state.dir(), format!("the vectors of document {doc} are lost"));
            let (vectors_key, bytes, vectors_crc) = all_vectors.next().ok_or_else(lost)??;
            if vectors_key[1..] != head_key[1..] || vectors_crc != head.vectors_crc {
                return Err(lost().into());
            }
            if buried.contains(&doc) {
                continue;
            }
            let vectors = decode_vectors(&bytes, self.state.dir())?;
            found.documents += 1;
            found.passages += u64::from(head.passages);
            found.digest = found.digest.wrapping_add(digest(doc, crc));
            found.next_doc = doc + 1;
            found.next_vector = found.next_vector.max(head.first_vector.saturating_add(head.passages));
            each(Loaded { doc, head, vectors })?;
        }
        let totals = self.totals().clone();
        if all_vectors.next().is_some()
            || (found.documents, found.passages, found.digest)
                != (totals.documents, totals.passages, totals.digest)
            || found.next_doc > totals.next_doc
            || found.next_vector > totals.next_vector
        {
            let reason = format!(
                "it should hold {} documents with {} passages; {} with {} were found, or others than were written",
                totals.documents, totals.passages, found.documents, found.passages
            );
            return Err(StoreError::corrupt(self.state.dir(), reason).into());
        }
        let mut buried: Vec<u32> = buried.into_iter().collect();
        buried.sort_unstable();
        Ok(buried)
    }

    fn doc_of(&self, key: &[u8]) -> Result<u32, StoreError> {
        match key {
            &[_, a, b, c, d] => Ok(u32::from_be_bytes([a, b, c, d])),
            _ => Err(StoreError::corrupt(self.state.dir(), "a document's number cannot be read".into())),
        }
    }

    /// Closes it. Idempotent; what was committed needs it not.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        self.state.close()
    }
}

/// Refuses a store that is of an earlier state than its proof, or of another one.
fn check_proof(totals: &Totals, proof: Proof, dir: &Path, path: &Path) -> Result<(), StoreError> {
    if totals.sequence < proof.sequence {
        let reason = format!(
            "it ends at batch {} with {} documents, but batch {} with {} documents was acknowledged; {}",
            totals.sequence,
            totals.documents,
            proof.sequence,
            proof.documents,
            acknowledged::remedy(path)
        );
        return Err(StoreError::corrupt(dir, reason));
    }
    if totals.sequence == proof.sequence && totals.proof() != proof {
        let reason = format!(
            "after batch {} it holds {} documents, and not the {} that were acknowledged; {}",
            totals.sequence,
            totals.documents,
            proof.documents,
            acknowledged::remedy(path)
        );
        return Err(StoreError::corrupt(dir, reason));
    }
    Ok(())
}

fn required(state: &State, key: &[u8], what: &str) -> Result<Vec<u8>, StoreError> {
    match state.get(key)? {
        Some((bytes, _)) => Ok(bytes),
        None => Err(StoreError::corrupt(state.dir(), format!("{what} is missing"))),
    }
}
