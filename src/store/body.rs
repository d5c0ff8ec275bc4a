//! What a collection keeps of a document besides its text and vectors, as bytes: `FORMAT.md` calls them the body of a
//! head. A store over segments takes them apart and puts them together again, to the same bytes.

use std::{ops::Range, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    record::{decode, encode},
};
use crate::value::{Payload, PointId};

/// Version of the layout: the first byte.
const VERSION: u8 = 1;

/// What the collection keeps of a document besides its text and vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Body {
    pub(crate) id: PointId,
    pub(crate) title: String,
    pub(crate) payload: Payload,
    pub(crate) content_hash: [u8; 16],
    /// Bytes of the text, one range for each vector.
    pub(crate) passages: Vec<Range<u32>>,
    /// Microseconds since 1970.
    pub(crate) updated_at: i64,
}

impl Body {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.append(&mut encode(self));
        bytes
    }

    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::NewerFormat`].
    pub(crate) fn decode(bytes: &[u8], place: &Path) -> Result<Self, StoreError> {
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
