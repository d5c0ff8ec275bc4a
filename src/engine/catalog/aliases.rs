//! The other names of collections, looked up from either side.

use std::collections::{BTreeMap, BTreeSet};

/// Aliases, and the collection that each leads to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::engine) struct Aliases {
    targets: BTreeMap<String, String>,
    /// The same by collection; a collection without any is not in it.
    of: BTreeMap<String, BTreeSet<String>>,
}

impl Aliases {
    /// The collection that an alias leads to.
    pub(in crate::engine) fn target(&self, alias: &str) -> Option<&String> {
        self.targets.get(alias)
    }

    /// All aliases, by name.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.targets.keys()
    }

    /// The aliases of one collection, by name. Costs nothing for those of others.
    pub(super) fn of(&self, collection: &str) -> impl Iterator<Item = &String> {
        self.of.get(collection).into_iter().flatten()
    }

    /// Points an alias at a collection; answers where it pointed before.
    pub(super) fn point(&mut self, alias: &str, collection: String) -> Option<String> {
        let before = self.remove(alias);
        self.of.entry(collection.clone()).or_default().insert(alias.to_owned());
        self.targets.insert(alias.to_owned(), collection);
        before
    }

    /// Takes an alias away; answers where it pointed.
    pub(super) fn remove(&mut self, alias: &str) -> Option<String> {
        let before = self.targets.remove(alias)?;
        if let Some(names) = self.of.get_mut(&before) {
            names.remove(alias);
            if names.is_empty() {
                self.of.remove(&before);
            }
        }
        Some(before)
    }

    /// Takes all aliases of a collection away.
    pub(super) fn remove_of(&mut self, collection: &str) {
        for alias in self.of.remove(collection).unwrap_or_default() {
            self.targets.remove(&alias);
        }
    }
}

impl FromIterator<(String, String)> for Aliases {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(aliases: I) -> Self {
        let mut all = Aliases::default();
        for (alias, collection) in aliases {
            all.point(&alias, collection);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_sides_say_the_same_after_any_changes(
            changes in prop::collection::vec((0..3u8, "[a-c]", "[x-z]"), 0..40),
        ) {
            let (mut aliases, mut plain) = (Aliases::default(), BTreeMap::new());
            for (change, alias, collection) in changes {
                match change {
                    0 => {
                        let before = plain.insert(alias.clone(), collection.clone());
                        prop_assert_eq!(aliases.point(&alias, collection), before);
                    }
                    1 => prop_assert_eq!(aliases.remove(&alias), plain.remove(&alias)),
                    _ => {
                        aliases.remove_of(&collection);
                        plain.retain(|_, target| *target != collection);
                    }
                }
                prop_assert!(aliases.names().eq(plain.keys()));
                for collection in ["x", "y", "z"] {
                    let own = plain.iter().filter(|(_, target)| *target == collection);
                    prop_assert!(aliases.of(collection).eq(own.map(|(alias, _)| alias)));
                }
                // Nothing is left of what is gone, so that equal ones are equal.
                prop_assert_eq!(&aliases, &plain.clone().into_iter().collect());
            }
        }
    }
}
