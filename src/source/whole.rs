//! The files that become one document each: which id each has, and which folder it was found from.
//!
//! An id is the file's path below that folder, so two folders may give the same one. Who stores documents needs the
//! folder to tell them apart, and to know later which documents have lost their file. Ids are in Unicode's composed form
//! (NFC): some systems write names decomposed, and what is typed would not be found then.

use std::{borrow::Cow, collections::HashMap, path::Path, sync::Arc};

use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Text in Unicode's composed form (NFC), which is what keyboards give.
pub fn composed(text: &str) -> Cow<'_, str> {
    if is_nfc(text) { Cow::Borrowed(text) } else { Cow::Owned(text.nfc().collect()) }
}

/// All files that become one document each, and the folders that were searched for them.
#[derive(Debug, Default)]
pub struct WholeFiles {
    folders: Vec<WalkedFolder>,
    by_id: HashMap<String, WholeFile>,
}

/// A folder that the user gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkedFolder {
    /// Absolute and without links.
    pub path: Arc<str>,
    /// Whether everything below it could be looked at.
    pub complete: bool,
}

#[derive(Debug)]
struct WholeFile {
    folder: Arc<str>,
    /// Its name in messages.
    name: String,
}

impl WholeFiles {
    /// The folders that the user gave, each once; folders of single files are not among them.
    pub fn folders(&self) -> &[WalkedFolder] {
        &self.folders
    }

    /// The folder of the file that has this id and was read at this place (`file:line`); none for documents of tables.
    pub fn folder_of(&self, id: &str, place: &str) -> Option<&Arc<str>> {
        let file = self.by_id.get(id)?;
        let line = place.strip_prefix(&file.name)?;
        (line.is_empty() || line.starts_with(':')).then_some(&file.folder)
    }

    /// Whether a file of this id was found from this folder.
    pub fn has(&self, folder: &str, id: &str) -> bool {
        self.by_id.get(id).is_some_and(|file| &*file.folder == folder)
    }

    /// The number of files that were found from this folder.
    pub fn count(&self, folder: &str) -> u64 {
        self.by_id.values().filter(|file| &*file.folder == folder).count() as u64
    }

    /// Notes a folder; one that is given twice was as complete as its worse walk.
    pub(super) fn walked(&mut self, path: &Arc<str>, complete: bool) {
        match self.folders.iter_mut().find(|folder| folder.path == *path) {
            Some(folder) => folder.complete &= complete,
            None => self.folders.push(WalkedFolder { path: Arc::clone(path), complete }),
        }
    }

    /// Notes a file.
    ///
    /// # Errors
    /// The name of the file that has this id already.
    pub(super) fn note(&mut self, id: &str, folder: &Arc<str>, name: &str) -> Result<(), String> {
        if let Some(first) = self.by_id.get(id) {
            return Err(first.name.clone());
        }
        let file = WholeFile { folder: Arc::clone(folder), name: name.to_owned() };
        self.by_id.insert(id.to_owned(), file);
        Ok(())
    }
}

/// A folder's absolute path without links, as text.
pub(super) fn folder_name(folder: &Path) -> Arc<str> {
    let real = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    real.to_string_lossy().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_composed() {
        assert_eq!(composed("Cafe\u{301}"), "Caf\u{e9}");
        assert!(matches!(composed("Caf\u{e9}"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_file_is_known_by_its_id_and_its_place() {
        let mut files = WholeFiles::default();
        let folder: Arc<str> = "/a".into();
        files.note("x.md", &folder, "a/x.md").unwrap();
        assert_eq!(files.note("x.md", &"/b".into(), "b/x.md").unwrap_err(), "a/x.md");
        assert_eq!(files.folder_of("x.md", "a/x.md:1"), Some(&folder));
        assert_eq!(files.folder_of("x.md", "a/x.mdx:1"), None);
        assert_eq!(files.folder_of("x.md", "rows.jsonl:1"), None);
        assert!(files.has("/a", "x.md") && !files.has("/b", "x.md"));
        assert_eq!((files.count("/a"), files.count("/b")), (1, 0));
        files.walked(&folder, true);
        files.walked(&folder, false);
        assert_eq!(files.folders(), [WalkedFolder { path: folder, complete: false }]);
    }
}
