//! A copy of a collection as of one moment, and a collection made of a copy.
//!
//! The graph is no part of a copy: it is a cache, and is built again.

use std::{path::Path, sync::Arc};

use super::{Collection, CollectionError, CollectionOptions, CollectionSpec, Made, recover::space_of};
use crate::{
    files::{disk::Disk, sums::Sum},
    segmented::backup::{self, BackedUp, Copy},
    stop::Stop,
    store::{Identity, StoreError},
};

/// Where a copy lies, and what is known of it.
pub(crate) struct CopyPlace<'a> {
    pub(crate) disk: &'a Arc<dyn Disk>,
    /// The folder of the copy.
    pub(crate) dir: &'a Path,
    /// Of the collection that was copied.
    pub(crate) identity: Identity,
    /// See [`Copy::sums`].
    pub(crate) sums: &'a dyn Fn(&Path) -> Option<Sum>,
}

impl<'a> CopyPlace<'a> {
    /// As the store reads it.
    pub(crate) fn copy(&self, spec: &CollectionSpec) -> Copy<'a> {
        let CopyPlace { disk, dir, identity, sums } = *self;
        Copy { disk, dir, identity, space: space_of(spec), sums }
    }
}

impl Collection {
    /// Makes a copy of all that is acknowledged now in `to`, an empty folder, while everything goes on. With `links`, files
    /// get a second name there where that is possible.
    ///
    /// # Errors
    /// [`CollectionError::Closed`]; as the store says.
    pub(crate) fn back_up(&self, to: &Path, links: bool, stop: &Stop) -> Result<BackedUp, CollectionError> {
        self.shared.check_open()?;
        Ok(self.shared.store.back_up(to, links, stop)?)
    }

    /// Makes a new collection, with an identity of its own, of a copy in `dir`, an empty folder.
    ///
    /// # Errors
    /// As [`Collection::open`]; store errors that name what of the copy is damaged.
    pub(crate) fn restore(
        dir: &Path,
        spec: CollectionSpec,
        place: &CopyPlace<'_>,
        options: CollectionOptions,
        stop: &Stop,
    ) -> Result<Arc<Self>, CollectionError> {
        spec.index.validate()?;
        let copy = place.copy(&spec);
        let identity = loop {
            let identity = Identity::draw();
            match backup::restore(&copy, &options.log, dir, identity, stop) {
                // Two of 2^64 are the same, and another draw is free.
                Err(StoreError::IdentityTaken { .. }) => {}
                restored => break restored.map(|()| identity)?,
            }
        };
        Self::open(dir, Made { spec, identity: Some(identity) }, options)
    }
}
