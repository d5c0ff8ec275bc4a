//! Finds the known word that an unknown word was probably meant for.

/// Longer words are not compared: the work grows with the product of both lengths.
const CHARS_MAX: usize = 64;

/// The known word that `word` may have been meant for, or none if every one is too far away: the same in other case, or
/// up to a third of its letters (at least one) away by [`edits`]. Of several the nearest, then the first by order.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = word.chars().count();
    if letters > CHARS_MAX {
        return None;
    }
    let most = (letters / 3).max(1);
    known
        .into_iter()
        .filter_map(|candidate| {
            if candidate.eq_ignore_ascii_case(word) {
                return Some((0, candidate));
            }
            // The lengths alone are that far apart.
            if candidate.chars().count().abs_diff(letters) > most {
                return None;
            }
            let away = edits(word, candidate);
            (away <= most).then_some((away, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours from `a` to `b` (Damerau-Levenshtein, "optimal string
/// alignment": no letter is changed twice).
pub(crate) fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1; b.len() + 1];
        for j in 0..b.len() {
            let replaced = above[j] + usize::from(a[i] != b[j]);
            row[j + 1] = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, away) in [
            ("", "", 0),
            ("", "abc", 3),
            ("year", "year", 0),
            ("yaer", "year", 1),
            ("yer", "year", 1),
            ("yeer", "year", 1),
            ("kitten", "sitting", 3),
            ("größe", "grosse", 3),
        ] {
            assert_eq!((edits(a, b), edits(b, a)), (away, away), "{a} {b}");
        }
    }

    #[test]
    fn the_nearest_word_is_found_or_none() {
        let known = ["lang", "tags", "year"];
        for (word, found) in [
            ("yaer", Some("year")),
            ("YEAR", Some("year")),
            ("tag", Some("tags")),
            ("language", None),
            ("author", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), found, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(10_000), known), None);
    }
}
