//! Scaled dot-product attention of one head over one text (Vaswani et al. 2017, equation 1): queries and keys in 8 bits
//! with one step for each of the two (which costs 2e-5 of a vector's cosine), shares and values in bfloat16 with float32
//! sums (shares in 8 bits would cost 1e-3).

use crate::simd::Isa;

/// Where one head of one text lies in rows `[tokens][stride]` that hold queries, keys and values side by side.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// Tokens of the text.
    pub(super) tokens: usize,
    /// Numbers of a query, a key and a value.
    pub(super) width: usize,
    pub(super) stride: usize,
    /// Columns at which the head's numbers begin.
    pub(super) queries_at: usize,
    pub(super) keys_at: usize,
    pub(super) values_at: usize,
}

/// Buffers between the steps; reused from head to head.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// In 8 bits, zero being 128: `[tokens][width]`.
    pub(super) queries: Vec<u8>,
    /// In 8 bits, zero being 0, four neighbouring numbers in a word, turned: `[width / 4][tokens]`.
    pub(super) keys: Vec<u32>,
    /// What the queries' zero adds to a key's products, to be taken off: `[tokens]`.
    pub(super) shifts: Vec<i32>,
    /// The numbers of two neighbouring tokens in a word: `[tokens / 2][width]`.
    pub(super) values: Vec<u32>,
    /// Of a block of queries: `[4][tokens]`.
    pub(super) scores: Vec<i32>,
    /// Two neighbouring tokens in a word: `[4][tokens / 2]`.
    pub(super) shares: Vec<u32>,
}

/// `context[t] = sum over j of softmax(q_t k_j / sqrt(width))_j v_j`, `context` being `[tokens][width]`.
///
/// # Panics
/// If `rows` does not hold what `head` says, or `context` has another length.
pub(super) fn attend(isa: Isa, head: &Head, rows: &[f32], context: &mut [f32], scratch: &mut Scratch) {
    let last = head.queries_at.max(head.keys_at).max(head.values_at) + head.width;
    assert!(last <= head.stride && head.tokens > 0 && rows.len() >= head.tokens * head.stride);
    assert_eq!(context.len(), head.tokens * head.width);
    isa.attend(head, rows, context, scratch);
}

#[cfg(test)]
mod tests;
