//! The arithmetic of an encoder layer, for processors that multiply 8-bit integers. It takes the tokens of many texts,
//! one text behind the other, through the layer.
//!
//! ONNX Runtime runs it as an operator of its own (`runtime/operators.rs`). Why not the runtime's own operators: they
//! want texts padded to one length; their 8-bit product takes the activations' scale from the whole batch, or from a
//! calibration, where one scale a token is nearer to full precision and still keeps batch-mates apart; and on
//! processors without AMX they have no bfloat16.
//!
//! Promises: a token's numbers depend on the text it is in and on nothing else, bit for bit: not on the batch, its
//! order, or the number of threads. Two kinds of processor may differ in the last bits of float32.
//!
//! Linear layers multiply u8 with i8 (scale and zero point a token, scale an output), attention multiplies queries with
//! keys in 8 bits (one scale each for a text and head) and values in bfloat16; sums of integers are exact, all other sums, norms, softmax and residuals are float32.
//!
//! | file | what |
//! |---|---|
//! | `linear.rs` | one linear layer: rounding, layout of the weights |
//! | `attention.rs` | one head over one text |
//! | `layer.rs` | the whole layer, shared out among threads |
//! | `pool.rs` | tokens -> one vector a text |
//! | `profile.rs` | where the time of a layer goes, for benchmarks |
//! | `isa.rs` | the same functions in the instructions of this machine |

mod attention;
mod isa;
mod layer;
mod linear;
mod pool;
mod profile;

pub(crate) use isa::best as best_isa;
pub(crate) use layer::{Buffers, Layer, Norm};
pub(crate) use linear::{INPUTS_MAX, Linear};
pub(crate) use pool::{PackedPooling, pool};
pub(crate) use profile::{StageTime, product_rate, profile};

use crate::simd::Isa;

/// Whether this machine has the instructions that make this faster than full precision.
pub(crate) fn is_fast() -> bool {
    best_isa() != Isa::PORTABLE
}
