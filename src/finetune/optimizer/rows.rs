//! Adds up the gradients of single rows, so that each row that has any gets one.
//!
//! Rows of the same number are added in the order in which they stand, so the sum has the same bits whatever the
//! number of threads.

use rayon::prelude::*;

use super::{OptimizerError, length};
use crate::finetune::parameters::Parameter;

/// Rows, each once, ascending.
pub(super) struct RowSums {
    pub ids: Vec<usize>,
    /// `[ids, width]`.
    pub rows: Vec<f32>,
    pub width: usize,
}

impl RowSums {
    /// Adds up the rows of a gradient. Sums are taken in float64: a batch has hundreds of `[CLS]`.
    pub fn new(parameter: &Parameter, ids: &[i64], rows: &[f32]) -> Result<Self, OptimizerError> {
        let count = parameter.shape[0];
        let width = parameter.values.len() / count.max(1);
        length(&parameter.name, "its gradient", rows.len(), ids.len() * width)?;
        let mut order = Vec::with_capacity(ids.len());
        for (place, &row) in ids.iter().enumerate() {
            let id = usize::try_from(row).ok().filter(|&id| id < count).ok_or_else(|| {
                let last = count.saturating_sub(1);
                OptimizerError::Row { parameter: parameter.name.clone(), row, last }
            })?;
            order.push((id, place));
        }
        order.sort_unstable();
        let groups: Vec<&[(usize, usize)]> = order.chunk_by(|a, b| a.0 == b.0).collect();
        let mut sums = vec![0.0; groups.len() * width];
        sums.par_chunks_exact_mut(width.max(1)).zip(groups.par_iter()).for_each(|(sum, group)| {
            let row = |place: usize| &rows[place * width..][..width];
            if let [(_, place)] = group {
                sum.copy_from_slice(row(*place));
                return;
            }
            let mut wide = vec![0f64; width];
            for &(_, place) in *group {
                wide.iter_mut().zip(row(place)).for_each(|(sum, &value)| *sum += f64::from(value));
            }
            sum.iter_mut().zip(wide).for_each(|(sum, value)| *sum = value as f32);
        });
        Ok(RowSums { ids: groups.iter().map(|group| group[0].0).collect(), rows: sums, width })
    }
}
