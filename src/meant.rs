//! Adds to the refusal of a name the known name that was probably meant.

use crate::spelling;

/// `; did you mean b?`, or nothing where no known name is near.
pub(crate) fn hint<S: AsRef<str>>(word: &str, known: impl IntoIterator<Item = S>) -> String {
    let known: Vec<S> = known.into_iter().collect();
    let near = spelling::nearest(word, known.iter().map(AsRef::as_ref));
    near.map(|near| format!("; did you mean {near}?")).unwrap_or_default()
}

/// [`hint`] for what serde says of a name it does not know: "unknown field `a`, expected one of `b`, `c`".
pub(crate) fn hint_of(message: &str) -> String {
    unknown_name(message).map(|(word, known)| hint(word, known)).unwrap_or_default()
}

/// The name that was not known, and those that are.
fn unknown_name(message: &str) -> Option<(&str, Vec<&str>)> {
    let what = ["unknown field ", "unknown variant "].iter().find_map(|start| {
        let at = message.find(start)?;
        message.get(at + start.len()..)
    })?;
    let mut quoted = what.split('`').skip(1).step_by(2);
    Some((quoted.next()?, quoted.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_name_is_told() {
        let keys = ["temperature", "batch", "base"];
        assert_eq!(hint("temprature", keys), "; did you mean temperature?");
        assert_eq!(hint("bsae", keys), "; did you mean base?");
        assert_eq!(hint("colour", keys), "");
    }

    #[test]
    fn a_refusal_tells_what_was_not_known() {
        let message = "TOML parse error\nunknown variant `simsce`, expected one of `simcse`, `pairs`";
        assert_eq!(unknown_name(message), Some(("simsce", vec!["simcse", "pairs"])));
        assert_eq!(hint_of(message), "; did you mean simcse?");
        assert_eq!(unknown_name("unknown field `a`, expected `b`"), Some(("a", vec!["b"])));
        assert_eq!(hint_of("invalid type"), "");
    }
}
