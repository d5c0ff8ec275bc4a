//! What is written down of a collection: the description in its folder, and its entry in the catalogue.

use std::path::Path;

use crate::{
    collection::{CollectionSpec, Identity},
    engine::{
        CollectionInfo,
        error::Result,
        inventory::{Description, Entry},
    },
    store::{StoreError, disk::RealDisk, folder},
    vector::Dim,
};

/// What a store needs to know of a collection.
pub(in crate::engine) fn spec_of(info: &CollectionInfo) -> Result<CollectionSpec> {
    let fingerprint = info.model.as_ref().map_or_else(String::new, |model| model.fingerprint.0.clone());
    Ok(CollectionSpec { dim: Dim::new(info.dimension)?, metric: info.metric, index: info.index, fingerprint })
}

/// # Errors
/// [`StoreError::Corrupt`]; [`StoreError::NewerFormat`] and [`StoreError::NotUnderstood`] where it is whole.
pub(super) fn read_description(dir: &Path) -> Result<Option<Description>, StoreError> {
    let path = dir.join(folder::DESCRIPTION_FILE);
    folder::description(dir)?.map(|bytes| Description::parse(&bytes, &path)).transpose()
}

pub(super) fn describe_folder(dir: &Path, description: &Description) -> Result<(), StoreError> {
    folder::describe(dir, &description.to_bytes(), &RealDisk)
}

/// Enters the identity into a description that an earlier version wrote. Where it cannot be done, the next opening does.
/// The caller sees to it that nobody else writes the description meanwhile.
pub(in crate::engine) fn identify(dir: &Path, identity: Identity) {
    let entered = read_description(dir).and_then(|description| match description {
        Some(description) if description.identity.is_none() => {
            describe_folder(dir, &Description { identity: Some(identity), ..description })
        }
        _ => Ok(()),
    });
    if let Err(error) = entered {
        tracing::warn!(folder = %dir.display(), %error, "the collection's identity is not in its description yet");
    }
}

pub(super) fn entry_bytes(info: &CollectionInfo, folder: &str, identity: Option<Identity>) -> Vec<u8> {
    let entry = Entry { info: info.clone(), folder: folder.to_owned(), identity };
    serde_json::to_vec(&entry).expect("plain data has a JSON form")
}
