//! Which collection something on disk belongs to: sixteen bytes that no other collection has.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use serde::{Deserialize, Serialize};

/// Drawn when a collection is made and kept for its life: in the description of its folder, in its store, in the file of
/// what was acknowledged, and in its saved graph. Written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Identity(pub [u8; 16]);

impl Identity {
    /// One that no other collection has: the standard library seeds its hashers from the system.
    pub(crate) fn draw() -> Self {
        let mut bytes = [0; 16];
        for half in bytes.chunks_exact_mut(8) {
            let mut hasher = RandomState::new().build_hasher();
            hasher.write_u32(std::process::id());
            hasher.write_u128(
                std::time::SystemTime::now()
                    .duration_since(std::time::SystemTime::UNIX_EPOCH)
                    .map_or(0, |since| since.as_nanos()),
            );
            half.copy_from_slice(&hasher.finish().to_le_bytes());
        }
        Identity(bytes)
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl From<Identity> for String {
    fn from(identity: Identity) -> Self {
        identity.to_string()
    }
}

impl TryFrom<String> for Identity {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("an identity has 32 hexadecimal digits, not {text:?}");
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        u128::from_str_radix(&text, 16).map(|n| Identity(n.to_be_bytes())).map_err(|_| wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_digits_and_read_back() {
        let identity = Identity([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(identity.to_string(), "000102030405060708090a0b0c0d0eff");
        assert_eq!(Identity::try_from(identity.to_string()), Ok(identity));
        for wrong in ["", "00", "+00102030405060708090a0b0c0d0eff", "000102030405060708090a0b0c0d0effff"] {
            assert!(Identity::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
        assert_ne!(Identity::draw(), Identity::draw());
    }
}
