//! What the collection keeps of a document besides its text and vectors, as the store's bytes.

use std::{ops::Range, path::Path};

use serde::{Deserialize, Serialize};

use super::point::ContentHash;
use crate::{
    store::{
        StoreError,
        record::{decode, encode},
    },
    value::{Payload, PointId},
};

/// Version of the layout: the first byte.
const VERSION: u8 = 1;

/// See `store/FORMAT.md`, "head of a document".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Body {
    pub(super) id: PointId,
    pub(super) title: String,
    pub(super) payload: Payload,
    pub(super) content_hash: ContentHash,
    pub(super) passages: Vec<Range<u32>>,
    pub(super) updated_at: i64,
}

impl Body {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.append(&mut encode(self));
        bytes
    }

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
