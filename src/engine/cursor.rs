//! A cursor is an opaque token that tells a client's next call where a listing continues.
//!
//! A token belongs to one collection (not to its name: an alias may be switched and a collection made again under the
//! same name between two pages) and to one listing: what is listed, in which order, with which filter. Any other is
//! refused, since its pages would neither be complete nor without doubles. Documents may change between two pages.
//!
//! Bytes, in hexadecimal digits: version (1), collection (8), listing (8), key of the last entry (UTF-8), CRC32 of all
//! before (4, little endian). The checksum finds accidents, not malice: a token gives no right that its bearer lacks.
//! Releases before version 1 gave the plain id of the last document; those are refused, since an id says nothing of
//! where it came from.

use sha2::{Digest, Sha256};

use crate::error::{ErrorKind, Fault};

const VERSION: u8 = 1;
const HASH_BYTES: usize = 8;
const HEAD_BYTES: usize = 1 + 2 * HASH_BYTES;
const CRC_BYTES: usize = 4;

/// What the cursors of a listing belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    collection: [u8; HASH_BYTES],
    listing: [u8; HASH_BYTES],
}

/// Why a cursor was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CursorError {
    #[error(
        "the cursor is none that this server gives (it is damaged, or of another release); start again without a cursor"
    )]
    NoCursor,
    #[error(
        "the cursor belongs to another collection (perhaps the alias was switched since, or the collection made again); start again without a cursor"
    )]
    OtherCollection,
    #[error(
        "the cursor belongs to a listing with another filter; give the filter that it came with, or start again without a cursor"
    )]
    OtherListing,
}

impl Fault for CursorError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl Scope {
    /// `listing` says what is listed and in which order, `collection` is [`crate::collection::Collection::identity`],
    /// `filter` the text form of what narrows the listing down, empty for all.
    pub fn new(listing: &str, collection: &[u8; 16], filter: &str) -> Self {
        Scope { collection: hash(&[collection]), listing: hash(&[listing.as_bytes(), filter.as_bytes()]) }
    }

    /// The cursor that goes on behind the entry with this key.
    pub fn after(&self, key: &str) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(self.collection);
        bytes.extend(self.listing);
        bytes.extend(key.as_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The key that [`Scope::after`] was given.
    ///
    /// # Errors
    /// [`CursorError`].
    pub fn key(&self, cursor: &str) -> Result<String, CursorError> {
        let bytes = from_hex(cursor).ok_or(CursorError::NoCursor)?;
        let (content, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or(CursorError::NoCursor)?;
        if crc32fast::hash(content) != u32::from_le_bytes(*crc) || content.first() != Some(&VERSION) {
            return Err(CursorError::NoCursor);
        }
        let (head, key) = content.split_first_chunk::<HEAD_BYTES>().ok_or(CursorError::NoCursor)?;
        let (collection, listing) = head[1..].split_at(HASH_BYTES);
        if collection != self.collection {
            return Err(CursorError::OtherCollection);
        }
        if listing != self.listing {
            return Err(CursorError::OtherListing);
        }
        String::from_utf8(key.to_vec()).map_err(|_| CursorError::NoCursor)
    }
}

/// First bytes of SHA-256 over all parts, each with its length in front.
fn hash(parts: &[&[u8]]) -> [u8; HASH_BYTES] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    std::array::from_fn(|i| digest[i])
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope(filter: &str) -> Scope {
        Scope::new("documents by id", &[7; 16], filter)
    }

    proptest! {
        #[test]
        fn a_cursor_leads_back_to_its_key(key in ".{0,40}", filter in ".{0,20}") {
            let scope = scope(&filter);
            prop_assert_eq!(scope.key(&scope.after(&key)), Ok(key));
        }

        #[test]
        fn a_cursor_with_one_digit_changed_is_refused(key in "[a-z]{1,20}", at: prop::sample::Index) {
            let mut cursor = scope("").after(&key).into_bytes();
            let at = at.index(cursor.len());
            cursor[at] = if cursor[at] == b'0' { b'1' } else { b'0' };
            let cursor = String::from_utf8(cursor).unwrap();
            prop_assert_eq!(scope("").key(&cursor), Err(CursorError::NoCursor));
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = scope("").key(&text);
        }
    }

    #[test]
    fn cursors_of_others_are_refused_by_what_differs() {
        let cursor = scope("a = 1").after("doc-7");
        assert_eq!(scope("a = 1").key(&cursor), Ok("doc-7".into()));
        assert_eq!(scope("a = 2").key(&cursor), Err(CursorError::OtherListing));
        assert_eq!(scope("").key(&cursor), Err(CursorError::OtherListing));
        let fields = Scope::new("fields by name", &[7; 16], "a = 1");
        assert_eq!(fields.key(&cursor), Err(CursorError::OtherListing));
        let other = Scope::new("documents by id", &[8; 16], "a = 1");
        assert_eq!(other.key(&cursor), Err(CursorError::OtherCollection));
        for plain in ["", "doc-7", "0123", "ab", "00000000"] {
            assert_eq!(scope("").key(plain), Err(CursorError::NoCursor), "{plain}");
        }
        for error in [CursorError::NoCursor, CursorError::OtherCollection, CursorError::OtherListing] {
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("start again"));
        }
    }
}
