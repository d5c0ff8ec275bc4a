//! Rights of the data folder: catalogue and collections are closed to other users, also where an earlier version, or a
//! copy, left them open.

use std::{collections::BTreeSet, path::Path};

use super::{CATALOG_DIR, COLLECTIONS_DIR};
use crate::{
    engine::inventory::{Catalogued, Folder},
    store::private,
};

/// Takes the rights of others from the catalogue and from the folder of the collections, through which one comes to
/// all that is below. The data folder itself is the user's to open or to close: it is only warned about.
pub(super) fn keep_private(root: &Path) {
    let (catalog, collections) = (root.join(CATALOG_DIR), root.join(COLLECTIONS_DIR));
    tell_narrowed(&catalog, private::narrow(&catalog));
    tell_narrowed(&collections, private::narrow_alone(&collections));
    if private::open_to_others(root) {
        tracing::warn!(dir = %root.display(), "others may look into the data folder, not into the collections; chmod 700 closes it");
    }
}

/// Takes the rights of others from the collections. What is none keeps its own, and is named in the log.
pub(super) fn keep_folders_private(dir: &Path, catalogued: &Catalogued, folders: &[Folder]) {
    let entered: BTreeSet<&str> = catalogued.entries.values().map(|entry| entry.folder.as_str()).collect();
    for folder in folders {
        let path = dir.join(&folder.name);
        let foreign = matches!(folder.description, Ok(None))
            && !folder.has_state
            && !entered.contains(folder.name.as_str());
        if foreign {
            tracing::info!(folder = %path.display(), "it is no collection and is left alone");
        } else if !path.is_symlink() {
            tell_narrowed(&path, private::narrow(&path));
        }
    }
}

fn tell_narrowed(path: &Path, narrowed: std::io::Result<bool>) {
    match narrowed {
        Ok(true) => tracing::warn!(path = %path.display(), "others could read it; now only this user can"),
        Ok(false) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "others may read it, and this cannot be changed");
        }
    }
}
