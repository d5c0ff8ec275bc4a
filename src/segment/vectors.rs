//! The file of one vector space: a row of 32-bit floats for every passage, read where it lies.
//!
//! Rows begin at multiples of 64 bytes of the file, so that a row of a mapped file never shares a cache line with
//! another one and wide registers load it aligned. Sums are of chunks of 1 MiB and are checked when a chunk is first
//! touched.

use std::{
    borrow::Cow,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Name, SegmentError, Space,
    file::{ALIGN, Check, DESCRIPTION, Kind, Owner, Place, SealedFile, u16_at, u32_at, u64_at},
    write::FileWriter,
};
use crate::{files::disk::Disk, vector::Metric};

/// Longest fingerprint of a model.
pub(super) const FINGERPRINT_BYTES_MAX: usize = 1024;

const ROWS: u16 = 2;
/// Bytes of the description before the fingerprint.
const FIXED_BYTES: usize = 32;

/// The name of a space's file in the segment's folder.
pub(super) fn file_name(space: u32) -> String {
    format!("{space}.vectors")
}

/// Bytes from one row to the next.
fn stride_of(space: &Space) -> u64 {
    (space.dim.len() as u64 * 4).next_multiple_of(ALIGN)
}

fn owner(name: Name, space: &Space) -> Owner {
    Owner { kind: Kind::Vectors, name, part: space.number.into() }
}

fn describe(space: &Space, rows: u64) -> Vec<u8> {
    let metric: u16 = match space.metric {
        Metric::Cosine => 0,
        Metric::Dot => 1,
        Metric::Euclidean => 2,
    };
    let mut bytes = Vec::with_capacity(FIXED_BYTES + space.fingerprint.len());
    bytes.extend_from_slice(&rows.to_le_bytes());
    bytes.extend_from_slice(&stride_of(space).to_le_bytes());
    bytes.extend_from_slice(&space.dim.as_u32().to_le_bytes());
    bytes.extend_from_slice(&metric.to_le_bytes());
    bytes.extend_from_slice(&[0; 6]);
    bytes.extend_from_slice(&(space.fingerprint.len() as u32).to_le_bytes());
    bytes.extend_from_slice(space.fingerprint.as_bytes());
    bytes
}

/// Writes the file; rows go to the disk as they come.
#[derive(Debug)]
pub(super) struct VectorsWriter {
    file: FileWriter,
    space: Space,
    rows: u64,
    /// A row as it is written.
    row: Vec<u8>,
}

impl VectorsWriter {
    pub(super) fn create(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        name: Name,
        space: &Space,
    ) -> Result<Self, SegmentError> {
        assert!(space.fingerprint.len() <= FINGERPRINT_BYTES_MAX, "a fingerprint is a hash in digits");
        let path = dir.join(file_name(space.number));
        let mut file = FileWriter::create(&**disk, &path, owner(name, space))?;
        file.begin(ROWS, Check::COARSE)?;
        Ok(VectorsWriter { file, space: space.clone(), rows: 0, row: Vec::new() })
    }

    /// Adds a row, which has the space's dimension.
    pub(super) fn push(&mut self, vector: &[f32]) -> Result<(), SegmentError> {
        debug_assert_eq!(vector.len(), self.space.dim.len());
        self.row.clear();
        self.row.extend(vector.iter().flat_map(|value| value.to_le_bytes()));
        self.row.resize(stride_of(&self.space) as usize, 0);
        self.rows += 1;
        self.file.write(&self.row)
    }

    pub(super) fn finish(mut self) -> Result<(), SegmentError> {
        self.file.section(DESCRIPTION, Check::Whole, &describe(&self.space, self.rows))?;
        self.file.finish()
    }
}

/// The vectors of one space, in the order of the passages.
#[derive(Debug)]
pub(crate) struct Vectors {
    file: SealedFile,
    place: Place,
    space: Space,
    rows: u32,
    stride: u64,
}

impl Vectors {
    /// Opens the file, which must be of this space: same dimension, metric and model.
    pub(super) fn open(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        name: Name,
        space: &Space,
    ) -> Result<Self, SegmentError> {
        let path = dir.join(file_name(space.number));
        Self::of(SealedFile::open(disk, &path, owner(name, space))?, path, space)
    }

    /// The same of a file one of whose ends may be damaged.
    pub(super) fn open_damaged(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        name: Name,
        space: &Space,
    ) -> Result<Self, SegmentError> {
        let path = dir.join(file_name(space.number));
        Self::of(SealedFile::open_damaged(disk, &path, owner(name, space))?, path, space)
    }

    fn of(file: SealedFile, path: PathBuf, space: &Space) -> Result<Self, SegmentError> {
        let got = file.description();
        if got.len() < FIXED_BYTES || got.len() - FIXED_BYTES != u32_at(got, 28) as usize {
            return Err(SegmentError::corrupt(&path, 0, "its description has another length"));
        }
        let rows = u64_at(got, 0);
        if got != describe(space, rows) {
            let fingerprint = String::from_utf8_lossy(&got[FIXED_BYTES..]);
            let show = |dim: u32, metric: u16, model: &str| {
                format!("vectors of dimension {dim}, metric {metric} and model {model:?}")
            };
            let expected = describe(space, rows);
            return Err(SegmentError::Foreign {
                path,
                got: show(u32_at(got, 16), u16_at(got, 20), &fingerprint),
                expected: show(u32_at(&expected, 16), u16_at(&expected, 20), &space.fingerprint),
            });
        }
        let stride = stride_of(space);
        let place = file.table(ROWS, rows, stride)?;
        let rows = u32::try_from(rows)
            .map_err(|_| SegmentError::corrupt(&path, 0, "it claims more rows than a segment has"))?;
        Ok(Vectors { place, file, space: space.clone(), rows, stride })
    }

    /// What the vectors are of.
    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    /// Number of rows: one for every passage of the segment.
    pub(crate) fn len(&self) -> u32 {
        self.rows
    }

    /// Floats from one row to the next in [`Vectors::rows`]; those behind the dimension are zero.
    #[cfg_attr(not(test), expect(dead_code, reason = "the index over segments reads it next"))]
    pub(crate) fn stride(&self) -> usize {
        (self.stride / 4) as usize
    }

    /// One vector. It is borrowed unless this machine's numbers are of the other endianness.
    ///
    /// # Errors
    /// [`SegmentError::Corrupt`] if there is no such row, or the sum of its chunk is wrong.
    pub(crate) fn row(&self, row: u32) -> Result<Cow<'_, [f32]>, SegmentError> {
        let start = u64::from(row) * self.stride;
        let bytes = self.file.bytes(self.place, start..start + 4 * self.space.dim.len() as u64)?;
        Ok(floats(bytes))
    }

    /// Some rows, one after the other, [`Vectors::stride`] floats each.
    ///
    /// # Errors
    /// As [`Vectors::row`].
    #[cfg_attr(not(test), expect(dead_code, reason = "the index over segments reads it next"))]
    pub(crate) fn rows(&self, rows: Range<u32>) -> Result<Cow<'_, [f32]>, SegmentError> {
        let at = |row: u32| u64::from(row) * self.stride;
        Ok(floats(self.file.bytes(self.place, at(rows.start)..at(rows.end))?))
    }

    pub(super) fn file(&self) -> &SealedFile {
        &self.file
    }
}

/// Bytes as floats. A mapped file begins at a page and its rows at multiples of 64, so on a machine of little endian
/// they are floats where they lie.
fn floats(bytes: &[u8]) -> Cow<'_, [f32]> {
    if cfg!(target_endian = "little")
        && let Ok(floats) = bytemuck::try_cast_slice(bytes)
    {
        return Cow::Borrowed(floats);
    }
    let (floats, _) = bytes.as_chunks::<4>();
    Cow::Owned(floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_the_same_wherever_they_lie() {
        let values = [0.5f32, -0.0, f32::MIN_POSITIVE, 3.0e38, 1.0];
        let mut bytes = vec![0; 1];
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        // One of the two is not aligned.
        let shifted = bytes[1..].to_vec();
        for got in [floats(&bytes[1..]), floats(&shifted)] {
            assert_eq!(got.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), values.map(f32::to_bits));
        }
    }
}
