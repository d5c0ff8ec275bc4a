//! A collection's documents as earlier versions kept them in sled, formats 1 to 3: read, and written no more. What is
//! read becomes segments; see `segmented/take_over.rs`.
//!
//! What a document's head means is the collection's business; here it is bytes. A document has a number of 64 bits, one
//! more than the document before it, which is never given out again. A removed document was first only marked as removed.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use crate::random::SplitMix;

use super::{
    StoreError,
    acknowledged::{self, Found, Proof},
    disk::Disk,
    earlier,
    identity::Identity,
    record::{decode, decode_vectors},
    state::{State, TOTALS_KEY},
};

/// The last of the formats that `FORMAT.md` describes.
const STORE_FORMAT: u32 = 3;

/// The last format that has no file of what was acknowledged.
const FORMAT_WITHOUT_PROOF: u32 = 1;

/// The last format of documents with numbers of 32 bits, which kept the collection's settings in the store.
const FORMAT_OF_SMALL_NUMBERS: u32 = 2;

const FORMAT_KEY: &[u8] = b"f";
const IDENTITY_KEY: &[u8] = b"i";

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

/// What an earlier version kept of one collection.
#[derive(Debug)]
pub(crate) struct Store {
    state: State,
    identity: Identity,
    totals: Totals,
    /// The file of what was acknowledged.
    acknowledged: PathBuf,
    /// How the collection was made, where the store says so.
    earlier: Option<earlier::Spec>,
    /// Somebody accepted, by hand, that the store holds less than was acknowledged.
    accepted: bool,
}

/// Written with every batch, to be compared with what is found.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
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

#[derive(Debug, Deserialize)]
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
    form: Form,
    vectors_crc: u32,
    text_bytes: u64,
    text_crc: u32,
}

/// A document that [`Store::load`] found.
pub(crate) struct Loaded {
    pub(crate) number: u64,
    pub(crate) head: Head,
    /// All its vectors, one after the other.
    pub(crate) vectors: Vec<f32>,
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

    fn head(self, bytes: &[u8], dir: &Path) -> Result<Head, StoreError> {
        Ok(match self {
            Form::Small => {
                let earlier::StoredHead {
                    body,
                    _first_vector: _,
                    passages,
                    vectors_crc,
                    text_bytes,
                    text_crc,
                } = decode(bytes, dir, "a document")?;
                Head { body, passages, form: self, vectors_crc, text_bytes, text_crc }
            }
            Form::Today => {
                let StoredHead { body, passages, vectors_crc, text_bytes, text_crc } =
                    decode(bytes, dir, "a document")?;
                Head { body, passages, form: self, vectors_crc, text_bytes, text_crc }
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

impl Store {
    /// Opens a store, and writes nothing that it does not hold already. `expected`: the identity that the collection's
    /// description tells, if it tells one. [`Store::load`] comes next.
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
        let found = acknowledged::find(&path)?;
        let state = State::open(dir, cache_bytes, disk)?;
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
        match found {
            Found::Proof(proof) => check_proof(&totals, (identity, format), proof, dir, &path)?,
            Found::Missing if format > FORMAT_WITHOUT_PROOF => {
                let reason = format!(
                    "it is missing, so nobody can tell whether the {documents} documents that {} holds are all; {}",
                    dir.display(),
                    acknowledged::remedy(&path)
                );
                return Err(StoreError::corrupt(&path, reason));
            }
            Found::Missing => {}
            Found::Accepted => {
                tracing::warn!(dir = %dir.display(), documents, "what the store holds was accepted by hand");
            }
        }
        Ok(Store { state, identity, totals, acknowledged: path, earlier, accepted })
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
        let totals = &self.totals;
        let reason = format!(
            "it ends at batch {} with {} documents, but {} was saved after batch {sequence}; {}",
            totals.sequence,
            totals.documents,
            path.display(),
            acknowledged::remedy(&self.acknowledged)
        );
        StoreError::corrupt(self.state.dir(), reason)
    }

    /// Its folder.
    pub(crate) fn dir(&self) -> &Path {
        self.state.dir()
    }

    /// The lowest document number never given out.
    pub(crate) fn next_number(&self) -> u64 {
        self.totals.next
    }

    /// Batches committed so far.
    pub(crate) fn sequence(&self) -> u64 {
        self.totals.sequence
    }

    /// The text of a document whose head was read.
    pub(crate) fn text(&self, number: u64, head: &Head) -> Result<String, StoreError> {
        if head.text_bytes == 0 {
            return Ok(String::new());
        }
        let damaged =
            || StoreError::corrupt(self.state.dir(), format!("the text of document {number} is lost"));
        let (packed, crc) = self.state.get(&head.form.key(Kind::Text, number))?.ok_or_else(damaged)?;
        if crc != head.text_crc {
            return Err(damaged());
        }
        let len = usize::try_from(head.text_bytes).map_err(|_| damaged())?;
        let text = zstd::bulk::decompress(&packed, len).map_err(|_| damaged())?;
        String::from_utf8(text).map_err(|_| damaged())
    }

    /// Reads everything but the texts, in the order of the document numbers, and checks it against the totals.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], also if anything is missing or too much; whatever `each` returns.
    pub(crate) fn load<E: From<StoreError>>(
        &self,
        mut each: impl FnMut(Loaded) -> Result<(), E>,
    ) -> Result<(), E> {
        let totals = &self.totals;
        let mut found = Totals { next: totals.next, small_end: totals.small_end, ..Totals::default() };
        for form in [Form::Small, Form::Today] {
            self.load_form(form, &mut found, &mut each)?;
        }
        found.sequence = totals.sequence;
        if found != *totals {
            let reason = format!(
                "it should hold {} documents with {} passages; {} with {} were found, or others than were written",
                totals.documents, totals.passages, found.documents, found.passages
            );
            return Err(StoreError::corrupt(self.state.dir(), reason).into());
        }
        Ok(())
    }

    fn load_form<E: From<StoreError>>(
        &self,
        form: Form,
        found: &mut Totals,
        each: &mut impl FnMut(Loaded) -> Result<(), E>,
    ) -> Result<(), E> {
        let dir = self.state.dir();
        let mut removed = HashSet::new();
        for entry in self.state.scan(&[form.letter(Kind::Removed)])? {
            removed.insert(form.number(&entry?.0, dir)?);
        }
        let mut all_vectors = self.state.scan(&[form.letter(Kind::Vectors)])?;
        for entry in self.state.scan(&[form.letter(Kind::Head)])? {
            let (head_key, bytes, crc) = entry?;
            let number = form.number(&head_key, dir)?;
            if found.form(number) != form || number >= found.next {
                let reason = format!("document {number} has a number that was not given out");
                return Err(StoreError::corrupt(dir, reason).into());
            }
            let head = form.head(&bytes, dir)?;
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

    /// Closes it. Idempotent.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
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
