//! Dense vectors that are checked when they are made, and the metrics that compare them.
//!
//! A [`Vector`] is finite and of the right dimension from the moment it exists, and of unit length under
//! [`Metric::Cosine`]. No code further in checks again.
//! Indexes speak distance (smaller is nearer), the API speaks score (larger is better);
//! [`Metric::score`] is the only conversion.

use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, Fault};

mod kernels;
#[cfg(test)]
mod tests;

/// The largest dimension a collection may have.
pub const DIM_MAX: u32 = 8192;

/// Length of every vector of a collection, 1 to [`DIM_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Dim(u32);

impl Dim {
    /// Checks a dimension.
    ///
    /// # Errors
    /// [`VectorError::DimOutOfRange`] unless 1 <= `dim` <= [`DIM_MAX`].
    pub fn new(dim: u32) -> Result<Self, VectorError> {
        if (1..=DIM_MAX).contains(&dim) { Ok(Dim(dim)) } else { Err(VectorError::DimOutOfRange { got: dim }) }
    }

    /// The dimension as the length of a slice.
    pub fn len(self) -> usize {
        self.0 as usize
    }

    /// Always `false`, since a dimension is at least 1. It exists because clippy expects it beside `len`.
    pub fn is_empty(self) -> bool {
        false
    }

    /// The dimension as the number that the API shows.
    pub fn as_u32(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Dim {
    type Error = VectorError;
    fn try_from(dim: u32) -> Result<Self, VectorError> {
        Dim::new(dim)
    }
}

impl From<Dim> for u32 {
    fn from(dim: Dim) -> u32 {
        dim.0
    }
}

/// Cosine similarity of two vectors of one length, -1 to 1. It is computed in double precision, so that differences of
/// 1e-7 are seen. Equal vectors give exactly 1, so that pairs of equal sentences tie.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let (mut ab, mut aa, mut bb) = (0.0f64, 0.0f64, 0.0f64);
    for (&x, &y) in a.iter().zip(b) {
        let (x, y) = (f64::from(x), f64::from(y));
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    if aa == 0.0 || bb == 0.0 { 0.0 } else { ab / (aa * bb).sqrt() }
}

/// How near two vectors are. Distance is smaller for nearer vectors, score is larger.
///
/// ```
/// use distilface::vector::Metric;
///
/// let distance = Metric::Euclidean.distance(&[0.0, 0.0], &[3.0, 4.0]);
/// assert_eq!(distance, 25.0, "the squared length");
/// assert_eq!(Metric::Euclidean.score(distance), 1.0 / 6.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Cosine of the angle between the vectors. Vectors are normalised on arrival, so distance is `1 - dot`, clamped to 0 to 2; score is `1 - distance`.
    #[default]
    Cosine,
    /// Dot product. Distance is `-dot` (so it may be negative); score is `dot`.
    Dot,
    /// Straight-line distance. Distance is the *squared* Euclidean distance; score is `1 / (1 + sqrt(distance))`.
    Euclidean,
}

impl Metric {
    /// Distance of two vectors of one length: smaller is nearer. Always finite, and the same either way round.
    pub fn distance(self, a: &[f32], b: &[f32]) -> f32 {
        debug_assert_eq!(a.len(), b.len());
        match self {
            Metric::Cosine => (1.0 - dot(a, b)).clamp(0.0, 2.0),
            Metric::Dot => finite(-dot(a, b)),
            Metric::Euclidean => finite(squared_euclidean(a, b)),
        }
    }

    /// The score that the API shows for a distance: larger is better.
    pub fn score(self, distance: f32) -> f32 {
        match self {
            Metric::Cosine => 1.0 - distance,
            Metric::Dot => -distance,
            Metric::Euclidean => 1.0 / (1.0 + distance.max(0.0).sqrt()),
        }
    }
}

/// Sum of products of two slices of one length. On one machine the same input gives the same bits, also when the two
/// slices are exchanged.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    (kernels::BEST.dot)(a, b)
}

/// Sum of squared differences of two slices of one length; gives the same bits as [`dot`] does.
pub fn squared_euclidean(a: &[f32], b: &[f32]) -> f32 {
    (kernels::BEST.squared_euclidean)(a, b)
}

/// Keeps a distance finite. Sums overflow for vectors of enormous values; they become the largest or smallest number,
/// never NaN.
fn finite(distance: f32) -> f32 {
    if distance.is_nan() { f32::MAX } else { distance.clamp(f32::MIN, f32::MAX) }
}

/// A dense vector that was checked when it was made.
///
/// ```
/// use distilface::vector::{Dim, Metric, Vector};
///
/// let dim = Dim::new(2).unwrap();
/// let vector = Vector::new(vec![3.0, 4.0], dim, Metric::Cosine).unwrap();
/// assert_eq!(vector.as_slice(), [0.6, 0.8], "cosine keeps unit length");
/// assert!(Vector::new(vec![3.0, f32::NAN], dim, Metric::Cosine).is_err());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Vector(Box<[f32]>);

impl Vector {
    /// Checks `values` and, under [`Metric::Cosine`], scales them to unit length.
    ///
    /// # Errors
    /// [`VectorError::WrongDim`], [`VectorError::NotFinite`] (with the position), and under cosine
    /// [`VectorError::ZeroLength`], since a zero vector has no direction.
    pub fn new(values: Vec<f32>, dim: Dim, metric: Metric) -> Result<Self, VectorError> {
        if values.len() != dim.len() {
            return Err(VectorError::WrongDim { expected: dim.as_u32(), got: values.len() });
        }
        if let Some(position) = values.iter().position(|v| !v.is_finite()) {
            return Err(VectorError::NotFinite { position, value: values[position] });
        }
        let mut values = values.into_boxed_slice();
        if metric == Metric::Cosine {
            // f64, and scaled by the largest value first, so that neither huge nor tiny vectors overflow or vanish.
            let largest = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            if largest == 0.0 {
                return Err(VectorError::ZeroLength);
            }
            let norm =
                values.iter().map(|&v| (f64::from(v) / f64::from(largest)).powi(2)).sum::<f64>().sqrt()
                    * f64::from(largest);
            // An already unit vector keeps its bits, so storing and reading again changes nothing.
            if (norm - 1.0).abs() > 1e-6 {
                for v in &mut values {
                    *v = (f64::from(*v) / norm) as f32;
                }
            }
        }
        Ok(Vector(values))
    }

    /// The values. They have unit length under cosine.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }
}

impl AsRef<[f32]> for Vector {
    fn as_ref(&self) -> &[f32] {
        &self.0
    }
}

/// Why some numbers are not a vector of this collection.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum VectorError {
    #[error("dimension must be between 1 and {DIM_MAX}, got {got}")]
    DimOutOfRange { got: u32 },
    #[error("the vector has {got} values, but this collection's dimension is {expected}")]
    WrongDim { expected: u32, got: usize },
    #[error("the vector's value at position {position} is {value}; every value must be finite")]
    NotFinite { position: usize, value: f32 },
    #[error(
        "the vector is all zero, which has no direction; cosine needs at least one value other than zero"
    )]
    ZeroLength,
}

impl Fault for VectorError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn field(&self) -> Option<&str> {
        Some("vector")
    }
}
