//! Documents with their vectors, as one durable unit each: the storage of one collection.
//!
//! What a document's head means is the collection's business; here it is bytes.
//! Nothing outside `store` knows what lies below: a log with segments can take its place behind the same calls.
//!
//! A removed document is first only marked as removed, so a restart forgets it. Its bytes stay readable, for searches
//! that are about to answer with it, until a later batch purges them.
//!
//! A document has a number of 64 bits, one more than the document before it, which is never given out again. What the
//! numbers of documents and vectors in memory are is the collection's business.
//!
//! A store of an earlier format is read as it is, and taken over by [`Store::settle`]: one batch that changes what the
//! store says of itself, and no document.

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
    earlier,
    identity::Identity,
    record::{decode, decode_vectors, encode, encode_vectors},
    state::{Changes, State, TOTALS_KEY},
};

/// Version of the layout that `FORMAT.md` describes.
pub(crate) const STORE_FORMAT: u32 = 3;

/// The last format that has no file of what was acknowledged.
const FORMAT_WITHOUT_PROOF: u32 = 1;

/// The last format of documents with numbers of 32 bits, which kept the collection's settings in the store.
const FORMAT_OF_SMALL_NUMBERS: u32 = 2;

const FORMAT_KEY: &[u8] = b"f";
const IDENTITY_KEY: &[u8] = b"i";

/// zstd level of texts: above it, sentences get little smaller and much slower.
const TEXT_LEVEL: i32 = 3;

/// What is stored of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Head,
    Text,
    Vectors,
    /// Empty: the document is gone, and its space not yet taken back.
    Removed,
}

/// How the records of a document are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Of formats 1 and 2.
    Small,
    Today,
}

/// Storage of one collection. Reads from any thread; one writer.
#[derive(Debug)]
pub(crate) struct Store {
    state: State,
    identity: Identity,
    totals: Mutex<Totals>,
    acknowledged: Acknowledged,
    /// What is yet to be done by [`Store::settle`].
    unsettled: Mutex<Option<Unsettled>>,
    /// How the collection was made, where the store says so still.
    earlier: Option<earlier::Spec>,
    /// The batch that found no room, until it is known not to be stored.
    refused: Mutex<Option<Refused>>,
    /// Somebody accepted, by hand, that the store holds less than was acknowledged.
    accepted: bool,
}

/// The file of what is acknowledged is to be written anew, and the store to be taken over if its format is an earlier
/// one.
#[derive(Debug)]
struct Unsettled {
    format: u32,
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
    next: u64,
    /// Documents with numbers below have the form of formats 1 and 2.
    small_end: u64,
}

impl Totals {
    fn proof(&self, identity: Identity) -> Proof {
        let Totals { sequence, documents, passages, digest, .. } = *self;
        Proof { sequence, documents, passages, digest, identity: Some(identity) }
    }

    fn form(&self, number: u64) -> Form {
        if number < self.small_end { Form::Small } else { Form::Today }
    }
}

impl From<earlier::Totals> for Totals {
    fn from(totals: earlier::Totals) -> Self {
        let earlier::Totals { sequence, documents, passages, digest, next_doc, .. } = totals;
        Totals { sequence, documents, passages, digest, next: next_doc.into(), small_end: next_doc.into() }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredHead {
    body: Vec<u8>,
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
    /// How many vectors it has.
    pub(crate) passages: u32,
    /// Number of its first vector, where an earlier format gave it one.
    pub(crate) first_vector: Option<u32>,
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

    fn form(&self) -> Form {
        if self.first_vector.is_some() { Form::Small } else { Form::Today }
    }
}

/// A document that [`Store::load`] found.
pub(crate) struct Loaded {
    pub(crate) number: u64,
    pub(crate) head: Head,
    /// All its vectors, one after the other.
    pub(crate) vectors: Vec<f32>,
}

/// Changes that are committed together.
#[derive(Debug, Default)]
pub(crate) struct StoreBatch {
    changes: Changes,
    put: Vec<Entry>,
    removed: Vec<Entry>,
}

/// What a batch that found no room would have done.
#[derive(Debug)]
struct Refused {
    put: Vec<u64>,
    removed: Vec<u64>,
}

/// What a document adds to the totals.
#[derive(Debug, Clone, Copy)]
struct Entry {
    number: u64,
    passages: u32,
    digest: u64,
}

/// What position-free sums are made of: every document counts with its number and its checksums, well mixed
/// (by SplitMix64; part of the format), so that no lost, doubled or exchanged document goes unseen.
fn digest(number: u64, head_crc: u32) -> u64 {
    SplitMix(number.rotate_left(32) ^ u64::from(head_crc)).next()
}

impl Form {
    /// Letters, and so keys, of the two forms differ, and none of a key is the beginning of another.
    fn letter(self, kind: Kind) -> u8 {
        let letter = match kind {
            Kind::Head => b'd',
            Kind::Text => b't',
            Kind::Vectors => b'v',
            Kind::Removed => b'x',
        };
        match self {
            Form::Small => letter,
            Form::Today => letter.to_ascii_uppercase(),
        }
    }

    fn key(self, kind: Kind, number: u64) -> Vec<u8> {
        let bytes = number.to_be_bytes();
        let bytes = match self {
            // Its numbers have no more bytes.
            Form::Small => &bytes[4..],
            Form::Today => &bytes[..],
        };
        [&[self.letter(kind)], bytes].concat()
    }

    /// The number in a key of this form.
    fn number(self, key: &[u8], dir: &Path) -> Result<u64, StoreError> {
        let number = match (self, key) {
            (Form::Small, &[_, a, b, c, d]) => Some(u32::from_be_bytes([a, b, c, d]).into()),
            (Form::Today, [_, bytes @ ..]) => bytes.try_into().ok().map(u64::from_be_bytes),
            _ => None,
        };
        number.ok_or_else(|| StoreError::corrupt(dir, "a document's number cannot be read".into()))
    }

    fn head(self, bytes: &[u8], crc: u32, dir: &Path) -> Result<Head, StoreError> {
        Ok(match self {
            Form::Small => {
                let earlier::StoredHead { body, first_vector, passages, vectors_crc, text_bytes, text_crc } =
                    decode(bytes, dir, "a document")?;
                let first_vector = Some(first_vector);
                Head { body, passages, first_vector, crc, vectors_crc, text_bytes, text_crc }
            }
            Form::Today => {
                let StoredHead { body, passages, vectors_crc, text_bytes, text_crc } =
                    decode(bytes, dir, "a document")?;
                Head { body, passages, first_vector: None, crc, vectors_crc, text_bytes, text_crc }
            }
        })
    }
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
    /// Adds a document under a number never used before.
    pub(crate) fn put<'a>(
        &mut self,
        number: u64,
        body: Vec<u8>,
        text: &str,
        vectors: impl ExactSizeIterator<Item = &'a [f32]>,
    ) {
        self.changes.grow();
        let key = |kind| Form::Today.key(kind, number);
        let passages = u32::try_from(vectors.len()).expect("a text of 4 GiB is never taken");
        let vectors_crc = self.changes.put(&key(Kind::Vectors), &encode_vectors(vectors));
        let text_crc = if text.is_empty() {
            0
        } else {
            let packed = zstd::bulk::compress(text.as_bytes(), TEXT_LEVEL)
                .expect("zstd fails only for want of memory or room, and the room is made to measure");
            self.changes.put(&key(Kind::Text), &packed)
        };
        let head = StoredHead { body, passages, vectors_crc, text_bytes: text.len() as u64, text_crc };
        let crc = self.changes.put(&key(Kind::Head), &encode(&head));
        self.put.push(Entry { number, passages, digest: digest(number, crc) });
    }

    /// Marks a document as gone.
    pub(crate) fn remove(&mut self, number: u64, head: &Head) {
        self.changes.put(&head.form().key(Kind::Removed, number), &[]);
        self.removed.push(Entry { number, passages: head.passages, digest: digest(number, head.crc) });
    }

    /// Takes back the space of a document removed in an earlier batch.
    pub(crate) fn purge(&mut self, number: u64, store: &Store) -> Result<(), StoreError> {
        for kind in [Kind::Head, Kind::Text, Kind::Vectors, Kind::Removed] {
            store.state.remove(&mut self.changes, &store.key(kind, number))?;
        }
        Ok(())
    }

    /// Whether there is nothing to commit.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl Store {
    /// Makes a new store in `dir`, and the file of what is acknowledged beside it.
    pub(crate) fn create(
        dir: &Path,
        identity: Identity,
        cache_bytes: u64,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, StoreError> {
        let totals = Totals::default();
        let state = State::create(dir, cache_bytes, Arc::clone(&disk))?;
        let acknowledged = Acknowledged::new(&acknowledged::path_of(dir), disk);
        acknowledged.renew(totals.proof(identity))?;
        let mut changes = Changes::default();
        changes.grow();
        changes.put(FORMAT_KEY, &STORE_FORMAT.to_le_bytes());
        changes.put(IDENTITY_KEY, &identity.0);
        changes.put(TOTALS_KEY, &encode(&totals));
        state.commit(changes)?;
        Ok(Store {
            state,
            identity,
            totals: Mutex::new(totals),
            acknowledged,
            unsettled: Mutex::default(),
            earlier: None,
            refused: Mutex::default(),
            accepted: false,
        })
    }

    /// Opens a store, and writes nothing that it does not hold already. `expected`: the identity that the collection's
    /// description tells, if it tells one. [`Store::load`] and [`Store::settle`] come next.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::NewerFormat`], [`StoreError::Io`]; [`StoreError::OtherCollection`];
    /// [`StoreError::Corrupt`], also if it holds less than was acknowledged.
    pub(crate) fn open(
        dir: &Path,
        expected: Option<Identity>,
        cache_bytes: u64,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, StoreError> {
        let path = acknowledged::path_of(dir);
        let found = Acknowledged::find(&path, Arc::clone(&disk))?;
        let state = State::open(dir, cache_bytes, Arc::clone(&disk))?;
        let format = check_format(&required(&state, FORMAT_KEY, "its format")?, STORE_FORMAT, dir)?;
        let totals = required(&state, TOTALS_KEY, "its totals")?;
        let (identity, totals, earlier) = if format > FORMAT_OF_SMALL_NUMBERS {
            let identity = required(&state, IDENTITY_KEY, "its identity")?.try_into();
            let identity =
                identity.map_err(|_| StoreError::corrupt(dir, "its identity cannot be read".into()))?;
            (Identity(identity), decode(&totals, dir, "its totals")?, None)
        } else {
            let spec = earlier::Spec::decode(&required(&state, earlier::SPEC_KEY, "its description")?, dir)?;
            let totals: earlier::Totals = decode(&totals, dir, "its totals")?;
            (spec.identity(), Totals::from(totals), Some(spec))
        };
        if let Some(expected) = expected.filter(|expected| *expected != identity) {
            let remedy = "put `state` and `acknowledged` back into the folder that they came from, and this collection's own here; to delete this collection would delete the other one's documents".to_owned();
            return Err(StoreError::OtherCollection {
                path: dir.to_owned(),
                got: identity,
                expected,
                remedy,
            });
        }
        let accepted = matches!(found, Found::Accepted);
        let documents = totals.documents;
        let acknowledged = match found {
            Found::Proof(acknowledged, proof) => {
                check_proof(&totals, (identity, format), proof, dir, &path)?;
                // An earlier format's does not say whose it is.
                if proof.identity.is_some() { acknowledged } else { Acknowledged::new(&path, disk) }
            }
            Found::Missing if format > FORMAT_WITHOUT_PROOF => {
                let reason = format!(
                    "it is missing, so nobody can tell whether the {documents} documents that {} holds are all; {}",
                    dir.display(),
                    acknowledged::remedy(&path)
                );
                return Err(StoreError::corrupt(&path, reason));
            }
            Found::Missing => Acknowledged::new(&path, disk),
            Found::Accepted => {
                tracing::warn!(dir = %dir.display(), documents, "what the store holds was accepted by hand");
                Acknowledged::new(&path, disk)
            }
        };
        let unsettled = (format < STORE_FORMAT || !acknowledged.is_made()).then_some(Unsettled { format });
        Ok(Store {
            state,
            identity,
            totals: Mutex::new(totals),
            acknowledged,
            unsettled: Mutex::new(unsettled),
            earlier,
            refused: Mutex::default(),
            accepted,
        })
    }

    /// Makes a store that was found whole one of today's format, and the file of what is acknowledged too. Idempotent,
    /// and done by the first commit if it was not before; a kill between its two steps leaves what opens again.
    ///
    /// # Errors
    /// As [`State::commit`].
    pub(crate) fn settle(&self) -> Result<(), StoreError> {
        let mut place = self.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Unsettled { format }) = &*place else { return Ok(()) };
        let totals = self.totals().clone();
        // First, since a store of today's format wants to be proved by a file that names it.
        self.acknowledged.renew(totals.proof(self.identity))?;
        if *format < STORE_FORMAT {
            let mut changes = Changes::default();
            changes.put(FORMAT_KEY, &STORE_FORMAT.to_le_bytes());
            changes.put(IDENTITY_KEY, &self.identity.0);
            changes.put(TOTALS_KEY, &encode(&totals));
            self.state.remove(&mut changes, earlier::SPEC_KEY)?;
            self.state.commit(changes)?;
            tracing::info!(dir = %self.state.dir().display(), format, now = STORE_FORMAT, "the store was taken over");
        }
        *place = None;
        Ok(())
    }

    /// Which collection it is of.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// How the collection was made, where an earlier format kept that here.
    pub(crate) fn earlier(&self) -> Option<&earlier::Spec> {
        self.earlier.as_ref()
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
    pub(crate) fn next_number(&self) -> u64 {
        self.totals().next
    }

    /// Vectors of all documents.
    pub(crate) fn passages(&self) -> u64 {
        self.totals().passages
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
        self.settle()?;
        self.take_back_refused()?;
        let mut totals = self.totals().clone();
        totals.sequence += 1;
        for &Entry { number, passages, digest } in &batch.put {
            totals.documents += 1;
            totals.passages += u64::from(passages);
            totals.digest = totals.digest.wrapping_add(digest);
            totals.next = totals.next.max(number + 1);
        }
        for &Entry { passages, digest, .. } in &batch.removed {
            totals.documents -= 1;
            totals.passages -= u64::from(passages);
            totals.digest = totals.digest.wrapping_sub(digest);
        }
        let numbers = |entries: &[Entry]| entries.iter().map(|entry| entry.number).collect();
        let refused = Refused { put: numbers(&batch.put), removed: numbers(&batch.removed) };
        let committed = self.commit_changes(batch.changes, totals);
        if committed.as_ref().is_err_and(StoreError::is_passing) && self.state.is_unsettled() {
            *self.refused() = Some(refused);
        }
        committed
    }

    /// Takes back a batch that found no room, if it was stored all the same: the caller told everybody that it was not.
    /// Every commit does it first, and everybody who reads all documents again must do it before.
    ///
    /// # Errors
    /// As [`State::commit`].
    pub(crate) fn take_back_refused(&self) -> Result<(), StoreError> {
        let mut place = self.refused();
        let Some(refused) = &*place else { return Ok(()) };
        self.state.revive()?;
        if self.state.late() {
            tracing::warn!(dir = %self.state.dir().display(), "a write that was refused was stored all the same; it is taken back");
            let mut changes = Changes::default();
            for number in &refused.put {
                for kind in [Kind::Head, Kind::Text, Kind::Vectors] {
                    self.state.remove(&mut changes, &self.key(kind, *number))?;
                }
            }
            for number in &refused.removed {
                self.state.remove(&mut changes, &self.key(Kind::Removed, *number))?;
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
        if let Err(error) = self.acknowledged.write(totals.proof(self.identity)) {
            self.state.fail(&error);
            return Err(error);
        }
        *self.totals() = totals;
        Ok(())
    }

    fn key(&self, kind: Kind, number: u64) -> Vec<u8> {
        self.totals().form(number).key(kind, number)
    }

    /// The head of a document, removed or not.
    pub(crate) fn head(&self, number: u64) -> Result<Option<Head>, StoreError> {
        let form = self.totals().form(number);
        match self.state.get(&form.key(Kind::Head, number))? {
            Some((bytes, crc)) => Ok(Some(form.head(&bytes, crc, self.state.dir())?)),
            None => Ok(None),
        }
    }

    /// The text of a document whose head was read.
    pub(crate) fn text(&self, number: u64, head: &Head) -> Result<String, StoreError> {
        if head.text_bytes == 0 {
            return Ok(String::new());
        }
        let damaged =
            || StoreError::corrupt(self.state.dir(), format!("the text of document {number} is lost"));
        let (packed, crc) = self.state.get(&head.form().key(Kind::Text, number))?.ok_or_else(damaged)?;
        if crc != head.text_crc {
            return Err(damaged());
        }
        let len = usize::try_from(head.text_bytes).map_err(|_| damaged())?;
        let text = zstd::bulk::decompress(&packed, len).map_err(|_| damaged())?;
        String::from_utf8(text).map_err(|_| damaged())
    }

    /// Reads everything but the texts, in the order of the document numbers, and checks it against the totals.
    /// Returns the numbers of removed documents, whose space is to be purged.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], also if anything is missing or too much; whatever `each` returns.
    pub(crate) fn load<E: From<StoreError>>(
        &self,
        mut each: impl FnMut(Loaded) -> Result<(), E>,
    ) -> Result<Vec<u64>, E> {
        let totals = self.totals().clone();
        let mut found = Totals { next: totals.next, small_end: totals.small_end, ..Totals::default() };
        let mut removed = Vec::new();
        for form in [Form::Small, Form::Today] {
            self.load_form(form, &mut found, &mut removed, &mut each)?;
        }
        found.sequence = totals.sequence;
        if found != totals {
            let reason = format!(
                "it should hold {} documents with {} passages; {} with {} were found, or others than were written",
                totals.documents, totals.passages, found.documents, found.passages
            );
            return Err(StoreError::corrupt(self.state.dir(), reason).into());
        }
        Ok(removed)
    }

    fn load_form<E: From<StoreError>>(
        &self,
        form: Form,
        found: &mut Totals,
        all_removed: &mut Vec<u64>,
        each: &mut impl FnMut(Loaded) -> Result<(), E>,
    ) -> Result<(), E> {
        let dir = self.state.dir();
        let mut removed = HashSet::new();
        for entry in self.state.scan(&[form.letter(Kind::Removed)])? {
            let number = form.number(&entry?.0, dir)?;
            removed.insert(number);
            all_removed.push(number);
        }
        let mut all_vectors = self.state.scan(&[form.letter(Kind::Vectors)])?;
        for entry in self.state.scan(&[form.letter(Kind::Head)])? {
            let (head_key, bytes, crc) = entry?;
            let number = form.number(&head_key, dir)?;
            if found.form(number) != form || number >= found.next {
                let reason = format!("document {number} has a number that was not given out");
                return Err(StoreError::corrupt(dir, reason).into());
            }
            let head = form.head(&bytes, crc, dir)?;
            let lost = || StoreError::corrupt(dir, format!("the vectors of document {number} are lost"));
            let (vectors_key, bytes, vectors_crc) = all_vectors.next().ok_or_else(lost)??;
            if vectors_key[1..] != head_key[1..] || vectors_crc != head.vectors_crc {
                return Err(lost().into());
            }
            if removed.contains(&number) {
                continue;
            }
            let vectors = decode_vectors(&bytes, dir)?;
            found.documents += 1;
            found.passages += u64::from(head.passages);
            found.digest = found.digest.wrapping_add(digest(number, crc));
            each(Loaded { number, head, vectors })?;
        }
        if all_vectors.next().is_some() {
            return Err(StoreError::corrupt(dir, "there are vectors of no document".into()).into());
        }
        Ok(())
    }

    /// Closes it. Idempotent; what was committed needs it not, and what was refused is not there at the next opening,
    /// if there is room to take it back.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        if let Err(error) = self.take_back_refused() {
            tracing::warn!(dir = %self.dir().display(), %error, "a write that was refused may be there after the next start");
        }
        self.state.close()
    }
}

/// Refuses a store that is of an earlier state than its proof, or of another one, and a proof of another store.
fn check_proof(
    totals: &Totals,
    (identity, format): (Identity, u32),
    proof: Proof,
    dir: &Path,
    path: &Path,
) -> Result<(), StoreError> {
    match proof.identity {
        Some(got) if got != identity => {
            let (path, remedy) = (path.to_owned(), acknowledged::remedy(path));
            return Err(StoreError::OtherCollection { path, got, expected: identity, remedy });
        }
        None if format > FORMAT_OF_SMALL_NUMBERS => {
            let reason = format!("it does not say which collection it is of; {}", acknowledged::remedy(path));
            return Err(StoreError::corrupt(path, reason));
        }
        _ => {}
    }
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
    if totals.sequence == proof.sequence
        && totals.proof(identity) != (Proof { identity: Some(identity), ..proof })
    {
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
