//! The body of a document as its parts: what `FORMAT.md` calls the body of a head, taken apart for a segment and put
//! together again, to the same bytes.

use std::{ops::Range, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    store::{
        StoreError,
        record::{decode, encode},
    },
    value::{Payload, PointId},
};

/// Version of the layout: the first byte.
const VERSION: u8 = 1;

/// What the collection keeps of a document besides its text and vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Body {
    pub(super) id: PointId,
    pub(super) title: String,
    pub(super) payload: Payload,
    pub(super) content_hash: [u8; 16],
    /// Bytes of the text, one range for each vector.
    pub(super) passages: Vec<Range<u32>>,
    /// Microseconds since 1970.
    pub(super) updated_at: i64,
}

impl Body {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.append(&mut encode(self));
        bytes
    }

    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::NewerFormat`].
    pub(super) fn decode(bytes: &[u8], place: &Path) -> Result<Self, StoreError> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => decode(rest, place, "a document"),
            Some((&got, _)) if got > VERSION => Err(StoreError::NewerFormat {
                path: place.to_owned(),
                got: got.into(),
                supported: VERSION.into(),
            }),
            _ => Err(StoreError::corrupt(place, "a document has no version".into())),
        }
    }
}
