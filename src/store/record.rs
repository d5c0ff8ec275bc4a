//! A record is a value as checked bytes, whatever file it lies in. Only this file uses `bincode`.
//!
//! A record is a frame (version, CRC32, length) around its bytes, so damage is seen before anything is decoded.
//! The meaning of the bytes is known to the code that wrote them.

use std::path::Path;

use bincode::Options as _;
use serde::{Serialize, de::DeserializeOwned};

use super::StoreError;

/// Version of the frame and of what is inside.
pub(crate) const RECORD_VERSION: u8 = 1;

/// Version, CRC32 and length.
pub(crate) const FRAME_BYTES: usize = 1 + 4 + 4;

/// bincode 1.3: little endian, variable-length integers, no bytes left over.
fn options() -> impl bincode::Options {
    bincode::DefaultOptions::new()
}

/// The bytes of a plain value.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    options().serialize(value).expect("plain data in memory always encodes")
}

/// A value of bytes that [`encode`] made.
///
/// # Errors
/// [`StoreError::Corrupt`] naming `place` and `what`.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], place: &Path, what: &str) -> Result<T, StoreError> {
    options()
        .with_limit(bytes.len() as u64)
        .deserialize(bytes)
        .map_err(|e| StoreError::corrupt(place, format!("{what} cannot be read: {e}")))
}

/// A frame around `body`, and the CRC32 in it.
pub(crate) fn frame(body: &[u8]) -> (Vec<u8>, u32) {
    let crc = crc32fast::hash(body);
    let len = u32::try_from(body.len()).expect("a record is far below 4 GiB: requests are limited");
    let mut framed = Vec::with_capacity(FRAME_BYTES + body.len());
    framed.push(RECORD_VERSION);
    framed.extend_from_slice(&crc.to_le_bytes());
    framed.extend_from_slice(&len.to_le_bytes());
    framed.extend_from_slice(body);
    (framed, crc)
}

/// The body of a frame, and its CRC32, once both agree.
///
/// # Errors
/// [`StoreError::Corrupt`] or, for a later version, [`StoreError::NewerFormat`].
pub(crate) fn unframe(framed: &[u8], place: &Path, what: &str) -> Result<(Vec<u8>, u32), StoreError> {
    let damaged = |reason: &str| StoreError::corrupt(place, format!("{what} {reason}"));
    let (head, body) = framed.split_first_chunk::<FRAME_BYTES>().ok_or_else(|| damaged("is cut short"))?;
    if head[0] > RECORD_VERSION {
        return Err(StoreError::NewerFormat {
            path: place.to_owned(),
            got: u32::from(head[0]),
            supported: u32::from(RECORD_VERSION),
        });
    }
    let crc = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    let len = u32::from_le_bytes([head[5], head[6], head[7], head[8]]);
    if body.len() as u64 != u64::from(len) {
        return Err(damaged(&format!("has {} bytes instead of {len}", body.len())));
    }
    if head[0] != RECORD_VERSION || crc32fast::hash(body) != crc {
        return Err(damaged("has a wrong checksum"));
    }
    Ok((body.to_vec(), crc))
}

/// Vectors as they are stored: f32, little endian, one after the other.
pub(crate) fn encode_vectors<'a>(vectors: impl Iterator<Item = &'a [f32]>) -> Vec<u8> {
    vectors.flatten().flat_map(|value| value.to_le_bytes()).collect()
}

/// The numbers of [`encode_vectors`].
///
/// # Errors
/// [`StoreError::Corrupt`] if they are not whole numbers.
pub(crate) fn decode_vectors(bytes: &[u8], place: &Path) -> Result<Vec<f32>, StoreError> {
    let (values, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(StoreError::corrupt(place, "a vector ends inside a number".into()));
    }
    Ok(values.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_of_a_later_version_is_told_from_damage() {
        let (mut framed, _) = frame(b"abc");
        framed[0] = RECORD_VERSION + 1;
        let error = unframe(&framed, Path::new("x"), "a record").unwrap_err();
        assert!(matches!(error, StoreError::NewerFormat { got: 2, supported: 1, .. }), "{error}");
    }

    proptest! {
        #[test]
        fn a_frame_gives_its_body_back(body: Vec<u8>) {
            let (framed, crc) = frame(&body);
            prop_assert_eq!(unframe(&framed, Path::new("x"), "a record").unwrap(), (body, crc));
        }

        #[test]
        fn any_flipped_bit_and_any_cut_is_seen(body in prop::collection::vec(any::<u8>(), 0..64), at: prop::sample::Index, bit in 0u8..8) {
            let (framed, _) = frame(&body);
            let mut flipped = framed.clone();
            flipped[at.index(framed.len())] ^= 1 << bit;
            prop_assert!(unframe(&flipped, Path::new("x"), "a record").is_err());
            prop_assert!(unframe(&framed[..at.index(framed.len())], Path::new("x"), "a record").is_err());
        }

        #[test]
        fn vectors_keep_their_bits(values: Vec<f32>) {
            let back = decode_vectors(&encode_vectors(std::iter::once(values.as_slice())), Path::new("x")).unwrap();
            prop_assert_eq!(
                back.iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
                values.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            );
        }
    }
}
