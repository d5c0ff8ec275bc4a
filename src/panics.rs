//! What a caught panic says.

use std::any::Any;

/// The message of a panic, of what `catch_unwind` or a thread's `join` gives.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    // `panic!` with arguments carries a `String`; any other payload has no words.
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it gave no reason".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_found_however_it_was_made() {
        let text = |panic: fn()| panic_text(&*std::panic::catch_unwind(panic).unwrap_err());
        assert_eq!(text(|| panic!("as it stands")), "as it stands");
        assert_eq!(text(|| panic!("made of {}", 2)), "made of 2");
        assert_eq!(text(|| std::panic::panic_any(7)), "it gave no reason");
    }
}
