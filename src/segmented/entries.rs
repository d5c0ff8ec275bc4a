//! What a collection says in the log of its folder: batches of documents put and buried, and what is carried forward.
//!
//! An entry is one record of `store::record`; its kind says which. Damage of its bytes is the log's to see, by its own
//! sums; what is checked here is that the bytes mean something: an entry of a kind that is not known was written by a
//! later version, and a collection with such an entry is refused.

use std::{io::Read as _, path::Path, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

use super::requests::Request;
use crate::store::{
    StoreError,
    record::{decode, decode_vectors, encode, encode_vectors},
};

/// Kind of the first entry of a collection, which says its whole identity.
pub(super) const ANNOUNCED: u8 = 1;

/// Kind of an entry that is a [`Batch`].
const BATCH: u8 = 2;

/// Kind of an entry that is a [`Carried`].
const CARRIED: u8 = 3;

/// Kind of the last entry of a collection: it is deleted, and what entries before say is nobody's.
pub(super) const GONE: u8 = 4;

/// Kind of an entry that is a [`Batch`] of calls with ids, or one that reserves numbers.
const BATCH_OF_REQUESTS: u8 = 5;

/// Kind of an entry that is a [`Carried`] of the same.
const CARRIED_REQUESTS: u8 = 6;

/// zstd level of texts: above it, sentences get little smaller and much slower.
const TEXT_LEVEL: i32 = 3;

/// Longest text in bytes: its passages are ranges of 32 bits.
const TEXT_BYTES_MAX: u64 = u32::MAX as u64;

/// What an entry of a collection means.
#[derive(Debug)]
pub(super) enum Entry {
    /// Changes that are done together.
    Batch(Batch),
    /// What earlier entries said and no segment holds yet, said again.
    Carried(Carried),
}

/// Changes that are done together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Segments held everything up to this entry when it was written: with segments of an earlier time it says too little.
    pub(super) base: u64,
    /// New documents, in ascending order of their numbers.
    pub(super) puts: Vec<Arc<Put>>,
    /// Documents that are gone.
    pub(super) buried: Vec<Gone>,
    /// Calls that these changes are of, as far as they have ids.
    pub(super) requests: Vec<Arc<Request>>,
    /// Document numbers below may be given out, also by entries that are not synced; 0: this entry does not say.
    pub(super) reserved: u64,
}

/// A document that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gone {
    pub(super) number: u64,
    /// Vectors it had.
    pub(super) passages: u32,
}

/// What entries up to [`Carried::as_of`] did that no segment holds, so that they are not needed any more.
#[derive(Debug, Clone, Default)]
pub(super) struct Carried {
    /// As [`Batch::base`].
    pub(super) base: u64,
    /// Sequence of the last entry that this one stands for.
    pub(super) as_of: u64,
    /// Every document number given out up to then is below.
    pub(super) next: u64,
    /// Documents that were not buried by then.
    pub(super) puts: Vec<Arc<Put>>,
    /// Documents of segments that were buried since the segments were made.
    pub(super) buried: Vec<Gone>,
    /// Calls that were done since the segments were made.
    pub(super) requests: Vec<Arc<Request>>,
    /// As [`Batch::reserved`].
    pub(super) reserved: u64,
}

/// A document as it was put: its number, what the collection keeps of it, its text and its vectors.
#[derive(Debug, PartialEq)]
pub(super) struct Put {
    pub(super) number: u64,
    /// As the collection gave it.
    pub(super) body: Vec<u8>,
    /// Vectors it has.
    pub(super) passages: u32,
    text: Text,
    /// All its vectors, one after the other.
    pub(super) vectors: Vec<f32>,
}

/// A text, packed where that makes it shorter.
#[derive(Debug, PartialEq)]
struct Text {
    /// Bytes of the text itself. As many as there are in `packed`: it is not packed.
    bytes: u64,
    packed: Vec<u8>,
}

impl Put {
    pub(super) fn new<'a>(
        number: u64,
        body: Vec<u8>,
        text: &str,
        vectors: impl ExactSizeIterator<Item = &'a [f32]>,
    ) -> Self {
        let passages = u32::try_from(vectors.len()).expect("a text of 4 GiB is never taken");
        let vectors: Vec<f32> = vectors.flatten().copied().collect();
        Self::of_vectors(number, body, text, passages, vectors)
    }

    /// The same for vectors that lie one after the other.
    pub(super) fn of_vectors(
        number: u64,
        body: Vec<u8>,
        text: &str,
        passages: u32,
        vectors: Vec<f32>,
    ) -> Self {
        Put { number, body, passages, text: Text::new(text), vectors }
    }

    /// Bytes of its text.
    pub(super) fn text_bytes(&self) -> u64 {
        self.text.bytes
    }

    /// Its text.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] naming `place` if it does not unpack to what it was.
    pub(super) fn text(&self, place: &Path) -> Result<String, StoreError> {
        self.text.unpack(self.number, place)
    }

    /// Bytes that it takes in memory, and about as many in the log.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.body.len() + self.text.packed.len() + size_of_val(self.vectors.as_slice())
    }
}

impl Text {
    fn new(text: &str) -> Self {
        let bytes = text.len() as u64;
        let packed = zstd::bulk::compress(text.as_bytes(), TEXT_LEVEL)
            .expect("zstd fails only for want of memory or room, and the room is made to measure");
        let packed = if packed.len() < text.len() { packed } else { text.as_bytes().to_vec() };
        Text { bytes, packed }
    }

    fn unpack(&self, number: u64, place: &Path) -> Result<String, StoreError> {
        let damaged = || StoreError::corrupt(place, format!("the text of document {number} cannot be read"));
        let mut text = Vec::new();
        if self.packed.len() as u64 == self.bytes {
            text.clone_from(&self.packed);
        } else {
            // Read piece by piece: what a damaged length promises is not allocated.
            let packed = zstd::Decoder::with_buffer(self.packed.as_slice()).map_err(|_| damaged())?;
            packed.take(self.bytes + 1).read_to_end(&mut text).map_err(|_| damaged())?;
        }
        if text.len() as u64 != self.bytes {
            return Err(damaged());
        }
        String::from_utf8(text).map_err(|_| damaged())
    }
}

impl Batch {
    /// Kind and bytes of the entry that says it.
    pub(super) fn encode(&self) -> (u8, Vec<u8>) {
        let puts = puts_of(&self.puts);
        // What an earlier release understands is written for it.
        if self.requests.is_empty() && self.reserved == 0 {
            return (BATCH, encode(&(self.base, puts, &self.buried)));
        }
        let more = (requests_of(&self.requests), self.reserved);
        (BATCH_OF_REQUESTS, encode(&(self.base, puts, &self.buried, more)))
    }
}

impl Carried {
    /// Kind and bytes of the entry that says it.
    pub(super) fn encode(&self) -> (u8, Vec<u8>) {
        let puts = puts_of(&self.puts);
        if self.requests.is_empty() && self.reserved == 0 {
            return (CARRIED, encode(&(self.base, self.as_of, self.next, puts, &self.buried)));
        }
        let more = (requests_of(&self.requests), self.reserved);
        (CARRIED_REQUESTS, encode(&(self.base, self.as_of, self.next, puts, &self.buried, more)))
    }
}

impl Entry {
    /// Why it cannot be applied to segments that hold everything up to `covered`; `None` if it can.
    pub(super) fn refuses(&self, covered: u64) -> Option<String> {
        let (Entry::Batch(Batch { base, .. }) | Entry::Carried(Carried { base, .. })) = self;
        (*base > covered).then(|| {
            format!(
                "its segments hold everything up to entry {covered} of the log, and held everything up to entry {base} when the log was last written: they are of an earlier time, and documents are missing"
            )
        })
    }

    /// What the bytes of an entry mean; `place` is what they were read from.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::NotUnderstood`].
    pub(super) fn decode(kind: u8, bytes: &[u8], dimension: u32, place: &Path) -> Result<Self, StoreError> {
        let puts = |stored: Vec<StoredPut>| -> Result<Vec<Arc<Put>>, StoreError> {
            stored.into_iter().map(|put| put.read(dimension, place).map(Arc::new)).collect()
        };
        match kind {
            // It changes nothing.
            ANNOUNCED => Ok(Entry::Batch(Batch::default())),
            BATCH => {
                let (base, stored, buried) = decode(bytes, place, "an entry")?;
                Ok(Entry::Batch(Batch { base, puts: puts(stored)?, buried, ..Batch::default() }))
            }
            BATCH_OF_REQUESTS => {
                let (base, stored, buried, (requests, reserved)) = decode(bytes, place, "an entry")?;
                let requests = shared(requests);
                Ok(Entry::Batch(Batch { base, puts: puts(stored)?, buried, requests, reserved }))
            }
            CARRIED => {
                let (base, as_of, next, stored, buried) = decode(bytes, place, "an entry")?;
                let puts = puts(stored)?;
                Ok(Entry::Carried(Carried { base, as_of, next, puts, buried, ..Carried::default() }))
            }
            CARRIED_REQUESTS => {
                let (base, as_of, next, stored, buried, (requests, reserved)) =
                    decode(bytes, place, "an entry")?;
                let (puts, requests) = (puts(stored)?, shared(requests));
                Ok(Entry::Carried(Carried { base, as_of, next, puts, buried, requests, reserved }))
            }
            kind => {
                let reason = format!("it has an entry of kind {kind}");
                Err(StoreError::NotUnderstood { path: place.to_owned(), reason })
            }
        }
    }
}

/// What an entry says of a collection whose dimension nobody knows any more.
#[derive(Debug, Default)]
pub(super) struct Outline {
    /// Number and body of every document that is put.
    pub(super) puts: Vec<(u64, Vec<u8>)>,
    /// Numbers of documents that are gone.
    pub(super) buried: Vec<u64>,
}

impl Outline {
    /// # Errors
    /// As [`Entry::decode`].
    pub(super) fn decode(kind: u8, bytes: &[u8], place: &Path) -> Result<Self, StoreError> {
        type Stored = (Vec<StoredPut>, Vec<Gone>);
        type More = (Vec<Request>, u64);
        let (puts, buried): Stored = match kind {
            ANNOUNCED => return Ok(Outline::default()),
            BATCH => {
                let (_, puts, buried): (u64, _, _) = decode(bytes, place, "an entry")?;
                (puts, buried)
            }
            CARRIED => {
                let (_, _, _, puts, buried): (u64, u64, u64, _, _) = decode(bytes, place, "an entry")?;
                (puts, buried)
            }
            BATCH_OF_REQUESTS => {
                let (_, puts, buried, _): (u64, _, _, More) = decode(bytes, place, "an entry")?;
                (puts, buried)
            }
            CARRIED_REQUESTS => {
                let (_, _, _, puts, buried, _): (u64, u64, u64, _, _, More) =
                    decode(bytes, place, "an entry")?;
                (puts, buried)
            }
            kind => {
                let reason = format!("it has an entry of kind {kind}");
                return Err(StoreError::NotUnderstood { path: place.to_owned(), reason });
            }
        };
        let puts = puts.into_iter().map(|put| (put.number, put.body.0)).collect();
        Ok(Outline { puts, buried: buried.into_iter().map(|gone| gone.number).collect() })
    }
}

fn requests_of(requests: &[Arc<Request>]) -> Vec<&Request> {
    requests.iter().map(|request| &**request).collect()
}

fn shared(requests: Vec<Request>) -> Vec<Arc<Request>> {
    requests.into_iter().map(Arc::new).collect()
}

fn puts_of(puts: &[Arc<Put>]) -> Vec<PutRef<'_>> {
    puts.iter()
        .map(|put| PutRef {
            number: put.number,
            body: Raw(&put.body),
            passages: put.passages,
            text_bytes: put.text.bytes,
            text: Raw(&put.text.packed),
            vectors: OwnedRaw(encode_vectors(std::iter::once(put.vectors.as_slice()))),
        })
        .collect()
}

/// A [`Put`] as it is written.
#[derive(Serialize)]
struct PutRef<'a> {
    number: u64,
    body: Raw<'a>,
    passages: u32,
    text_bytes: u64,
    text: Raw<'a>,
    vectors: OwnedRaw,
}

/// A [`Put`] as it is read.
#[derive(Deserialize)]
struct StoredPut {
    number: u64,
    body: OwnedRaw,
    passages: u32,
    text_bytes: u64,
    text: OwnedRaw,
    vectors: OwnedRaw,
}

impl StoredPut {
    fn read(self, dimension: u32, place: &Path) -> Result<Put, StoreError> {
        let StoredPut { number, body, passages, text_bytes, text, vectors } = self;
        let vectors = decode_vectors(&vectors.0, place)?;
        if vectors.len() as u64 != u64::from(passages) * u64::from(dimension) || text_bytes > TEXT_BYTES_MAX {
            let reason = format!(
                "document {number} has not {passages} vectors of {dimension} numbers, or no such text"
            );
            return Err(StoreError::corrupt(place, reason));
        }
        Ok(Put { number, body: body.0, passages, text: Text { bytes: text_bytes, packed: text.0 }, vectors })
    }
}

/// Bytes as they are: `serde` would write a slice of them one by one. bincode gives both the same form.
struct Raw<'a>(&'a [u8]);

/// [`Raw`], owned.
struct OwnedRaw(Vec<u8>);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl Serialize for OwnedRaw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for OwnedRaw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = OwnedRaw;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<OwnedRaw, E> {
                Ok(OwnedRaw(bytes.to_vec()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<OwnedRaw, E> {
                Ok(OwnedRaw(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: &str = "log/0000000001.log";

    fn put(number: u64, body: &[u8], text: &str, vectors: &[[f32; 2]]) -> Arc<Put> {
        Arc::new(Put::new(number, body.to_vec(), text, vectors.iter().map(|vector| &vector[..])))
    }

    fn read(kind: u8, bytes: &[u8]) -> Result<Entry, StoreError> {
        Entry::decode(kind, bytes, 2, Path::new(PLACE))
    }

    #[test]
    fn an_entry_of_a_later_version_is_not_taken_for_damage() {
        let (_, bytes) = Batch::default().encode();
        let error = read(9, &bytes).unwrap_err();
        assert!(matches!(&error, StoreError::NotUnderstood { .. }), "{error}");
        assert!(error.to_string().contains(PLACE), "{error}");
    }

    #[test]
    fn a_document_of_another_dimension_is_refused() {
        let wrong = Arc::new(Put::new(1, vec![1], "t", [&[1.0, 2.0, 3.0][..]].into_iter()));
        let (kind, bytes) = Batch { puts: vec![wrong], ..Batch::default() }.encode();
        assert!(matches!(read(kind, &bytes), Err(StoreError::Corrupt { .. })));
    }

    #[test]
    fn a_text_that_does_not_unpack_to_its_length_is_damage() {
        let text = "again and again ".repeat(40);
        for wrong in [text.len() as u64 - 1, text.len() as u64 + 1, 3] {
            let mut put = Put::new(1, vec![], &text, std::iter::empty());
            assert!(put.text.packed.len() < text.len());
            assert_eq!(put.text(Path::new(PLACE)).unwrap(), text);
            put.text.bytes = wrong;
            assert!(matches!(put.text(Path::new(PLACE)), Err(StoreError::Corrupt { .. })), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            puts in prop::collection::vec(
                (any::<u64>(), prop::collection::vec(any::<u8>(), 0..40), ".{0,300}", 0usize..3), 0..4),
            buried: Vec<(u64, u32)>, as_of: u64, next: u64,
            requests in prop::collection::vec((".{0,9}", prop::collection::vec(any::<u8>(), 0..9)), 0..3),
            reserved in prop::option::of(any::<u64>()).prop_map(Option::unwrap_or_default),
        ) {
            let buried: Vec<_> =
                buried.into_iter().map(|(number, passages)| Gone { number, passages }).collect();
            let vectors = [[0.5, -1.0], [f32::MIN_POSITIVE, 3.0e8]];
            let puts: Vec<_> =
                puts.iter().map(|(number, body, text, n)| put(*number, body, text, &vectors[..*n])).collect();
            let request = |(id, outcome): &(String, Vec<u8>)| {
                let (id, outcome) = (id.clone(), outcome.clone());
                Arc::new(Request { id, step: 3, hash: [9; 16], at: -4, outcome })
            };
            let requests: Vec<_> = requests.iter().map(request).collect();
            let is_plain = requests.is_empty() && reserved == 0;
            let (kind, bytes) = Batch {
                base: next, puts: puts.clone(), buried: buried.clone(), requests: requests.clone(), reserved,
            }.encode();
            prop_assert_eq!(kind == BATCH, is_plain);
            let Entry::Batch(batch) = read(kind, &bytes).unwrap() else { panic!("it is a batch") };
            prop_assert_eq!((batch.base, &batch.puts, &batch.buried), (next, &puts, &buried));
            prop_assert_eq!((&batch.requests, batch.reserved), (&requests, reserved));
            for (read, put) in batch.puts.iter().zip(&puts) {
                prop_assert_eq!(read.text(Path::new(PLACE)).unwrap(), put.text(Path::new(PLACE)).unwrap());
            }
            let (kind, bytes) = Carried {
                base: 7, as_of, next, puts: puts.clone(), buried: buried.clone(), requests: requests.clone(), reserved,
            }.encode();
            prop_assert_eq!(kind == CARRIED, is_plain);
            let Entry::Carried(carried) = read(kind, &bytes).unwrap() else { panic!("it is carried") };
            prop_assert_eq!((carried.base, carried.as_of, carried.next), (7, as_of, next));
            prop_assert_eq!((carried.puts, carried.buried), (puts, buried));
            prop_assert_eq!((carried.requests, carried.reserved), (requests, reserved));
        }

        #[test]
        fn no_bytes_make_it_panic_or_allocate_what_they_promise(kind in 0u8..8, bytes: Vec<u8>) {
            if let Ok(Entry::Batch(Batch { puts, .. }) | Entry::Carried(Carried { puts, .. })) = read(kind, &bytes) {
                for put in puts {
                    let _ = put.text(Path::new(PLACE));
                }
            }
        }

        #[test]
        fn an_entry_that_is_cut_short_is_refused(at: prop::sample::Index) {
            let puts = vec![put(3, b"body", "a text", &[[1.0, 2.0]])];
            let (kind, bytes) = Batch { base: 1, puts, buried: vec![Gone { number: 1, passages: 2 }], ..Batch::default() }.encode();
            prop_assert!(read(kind, &bytes[..at.index(bytes.len())]).is_err());
        }
    }
}
