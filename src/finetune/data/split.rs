//! Splits a data set into a part to train on and a part to watch the training by.
//!
//! Sides are chosen by content, not by place: the same example falls on the same side whatever was added, dropped or
//! sorted in between (for a fraction; a number of examples moves the border with the size of the whole).

use sha2::{Digest, Sha256};

use super::{DataError, Dataset};
use crate::random::SplitMix;

/// The part that is held out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HeldOutSize {
    /// About this share of the examples; above 0 and below 1.
    Fraction(f64),
    /// This number of examples, or a few more where examples must stay together.
    Count(usize),
}

impl Dataset {
    /// Splits it into the examples to train on and those held out, each in their order.
    ///
    /// Examples with the same anchor, and examples made of one document, stay on one side.
    ///
    /// # Errors
    /// [`DataError::Unusable`] if the size is out of bounds or a side would be empty.
    pub fn held_out(self, size: HeldOutSize, seed: u64) -> Result<(Dataset, Dataset), DataError> {
        let count = self.examples.len();
        let wrong = |reason: String| DataError::Unusable { name: self.name.clone(), reason };
        let keys: Vec<u64> = (0..count).map(|i| self.key(i, seed)).collect();
        // Held out is what has a key up to this.
        let border = match size {
            HeldOutSize::Fraction(share) if share > 0.0 && share < 1.0 => (share * 2f64.powi(64)) as u64,
            HeldOutSize::Fraction(share) => {
                let reason =
                    format!("a share of {share} cannot be held out; it must be more than 0 and less than 1");
                return Err(wrong(reason));
            }
            HeldOutSize::Count(wanted) if wanted > 0 && wanted < count => {
                *keys.clone().select_nth_unstable(wanted - 1).1
            }
            HeldOutSize::Count(wanted) => {
                let most = count.saturating_sub(1);
                return Err(wrong(format!(
                    "{wanted} of {count} examples cannot be held out; 1 to {most} can"
                )));
            }
        };
        let held = keys.iter().filter(|key| **key <= border).count();
        if held == 0 || held == count {
            let side = if held == 0 { "held out" } else { "left to train on" };
            let reason = format!(
                "none of its {count} examples would be {side}; hold out another share, or use another seed"
            );
            return Err(wrong(reason));
        }
        let empty = |name| Dataset { name, examples: Vec::new(), groups: Vec::new(), ..self };
        let mut train = empty(self.name.clone());
        let mut dev = empty(format!("{} (held out)", self.name));
        let mut groups = self.groups.into_iter();
        for (example, key) in self.examples.into_iter().zip(keys) {
            let side = if key <= border { &mut dev } else { &mut train };
            side.examples.push(example);
            side.groups.extend(groups.next());
        }
        Ok((train, dev))
    }

    /// Equal for examples that must stay together.
    fn key(&self, example: usize, seed: u64) -> u64 {
        let content = match self.groups.get(example) {
            Some(group) => u64::from(*group),
            None => content_hash([self.examples[example].anchor.as_str()].into_iter()),
        };
        SplitMix(content ^ SplitMix(seed).next()).next()
    }
}

/// Hashes consecutive texts, with white space reduced to one blank; the same on every machine and in every version.
pub(super) fn content_hash<'a>(texts: impl Iterator<Item = &'a str>) -> u64 {
    let mut hasher = Sha256::new();
    for text in texts {
        for word in text.split_whitespace() {
            hasher.update(word.as_bytes());
            hasher.update(b" ");
        }
        // No byte of UTF-8, so that texts cannot run into each other.
        hasher.update([0xff]);
    }
    u64::from_le_bytes(*hasher.finalize().first_chunk().expect("32 bytes"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{
        super::{Example, Kind},
        *,
    };

    fn numbered(n: usize) -> Dataset {
        Dataset::new("n", Kind::Texts, (0..n).map(|i| Example::text(format!("text {i}"))).collect())
    }

    fn anchors(set: &Dataset) -> BTreeSet<&str> {
        set.examples.iter().map(|e| e.anchor.as_str()).collect()
    }

    #[test]
    fn a_share_is_about_that_share_and_falls_the_same_way_in_a_larger_set() {
        let (train, dev) = numbered(2000).held_out(HeldOutSize::Fraction(0.1), 3).unwrap();
        assert_eq!(train.examples.len() + dev.examples.len(), 2000);
        assert!((150..250).contains(&dev.examples.len()), "{}", dev.examples.len());
        let (_, more) = numbered(3000).held_out(HeldOutSize::Fraction(0.1), 3).unwrap();
        assert!(anchors(&dev).is_subset(&anchors(&more)));
        let (_, other) = numbered(2000).held_out(HeldOutSize::Fraction(0.1), 4).unwrap();
        assert_ne!(anchors(&dev), anchors(&other), "the seed decides");
    }

    #[test]
    fn a_number_is_that_number() {
        let (train, dev) = numbered(100).held_out(HeldOutSize::Count(17), 1).unwrap();
        assert_eq!((train.examples.len(), dev.examples.len()), (83, 17));
        assert_eq!(dev.name, "n (held out)");
        assert!(anchors(&train).is_disjoint(&anchors(&dev)));
    }

    #[test]
    fn examples_of_one_anchor_or_one_document_stay_together() {
        let pairs = (0..300).map(|i| Example::pair(format!("a {}", i / 3), format!("p {i}"))).collect();
        let (train, dev) = Dataset::new("p", Kind::Pairs, pairs).held_out(HeldOutSize::Count(50), 1).unwrap();
        assert!(anchors(&train).is_disjoint(&anchors(&dev)));
        assert_eq!(dev.examples.len(), 51, "whole threes");

        let grouped = Dataset { groups: (0..300).map(|i| i / 10).collect(), ..numbered(300) };
        let (train, dev) = grouped.held_out(HeldOutSize::Fraction(0.3), 1).unwrap();
        let groups = |set: &Dataset| set.groups.iter().copied().collect::<BTreeSet<_>>();
        assert!(groups(&train).is_disjoint(&groups(&dev)));
        assert_eq!((train.groups.len(), dev.groups.len()), (train.examples.len(), dev.examples.len()));
    }

    #[test]
    fn sizes_that_leave_a_side_empty_are_refused() {
        let cases = [
            (HeldOutSize::Fraction(0.0), "more than 0 and less than 1"),
            (HeldOutSize::Fraction(1.0), "more than 0 and less than 1"),
            (HeldOutSize::Fraction(f64::NAN), "more than 0 and less than 1"),
            (HeldOutSize::Count(0), "1 to 9 can"),
            (HeldOutSize::Count(10), "1 to 9 can"),
            (HeldOutSize::Fraction(1e-9), "held out"),
            (HeldOutSize::Fraction(1.0 - 1e-9), "left to train on"),
        ];
        for (size, expected) in cases {
            let said = numbered(10).held_out(size, 1).unwrap_err().to_string();
            assert!(said.contains(expected), "{size:?} gave {said}");
        }
    }

    #[test]
    fn content_is_words_and_sides() {
        let hash = |texts: &[&str]| content_hash(texts.iter().copied());
        assert_eq!(hash(&["a  b"]), hash(&[" a b\n"]));
        assert_ne!(hash(&["a b"]), hash(&["ab"]));
        assert_ne!(hash(&["a", "b"]), hash(&["a b"]));
    }
}
