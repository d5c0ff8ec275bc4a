//! Work on large messages, beside the async threads.
//!
//! Decoding, checking or writing some megabytes takes milliseconds, in which an async thread serves nobody: such a message
//! is handled by a thread that tokio takes out of its round meanwhile. Small ones, nearly all of them, stay where they are.
//! Rejected: a pool of our own, since a codec is called in the middle of reading a stream and cannot wait.

use tokio::runtime::{Handle, RuntimeFlavor};

/// What handles more bytes than this is computed aside: below, it takes less than the 500 microseconds that async code
/// may compute.
const ASIDE_BYTES: usize = 64 << 10;

/// Computes `f`, which handles about `bytes` bytes: here if they are few, else on a thread that tokio replaces.
pub(crate) fn aside<T>(bytes: usize, f: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
    if bytes > ASIDE_BYTES && matches!(flavor, Ok(RuntimeFlavor::MultiThread)) {
        tokio::task::block_in_place(f)
    } else {
        f()
    }
}
