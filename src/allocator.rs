//! The C library's allocator, kept from holding what requests gave back.
//!
//! glibc gives each thread an arena of its own, up to eight a core, and returns memory of an arena only from its end.
//! Large requests that many threads decode in turn leave that many arenas of holes: twice what the budget allows was
//! seen to stay resident. So there are few arenas, and after large requests the holes go back to the system; so they do
//! after collections are closed, of which each left a third of a megabyte and more.
//! Elsewhere than on Linux with glibc nothing is done.

use std::sync::atomic::{AtomicBool, Ordering};

/// Memory of one request, or of one collection that was closed, from which on giving it back is worth a pass over the heap.
const LARGE_BYTES: usize = 1 << 20;

/// Whether so much came back since the last [`give_back`].
static LARGE: AtomicBool = AtomicBool::new(false);

/// Bounds the number of arenas. To be called before there are other threads; later it bounds only what is yet to come.
pub(crate) fn bound() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::bound(std::thread::available_parallelism().map_or(2, usize::from));
}

/// Notes that a request, or a collection that closed, gave back `bytes`.
pub(crate) fn given_back(bytes: usize) {
    if bytes >= LARGE_BYTES {
        LARGE.store(true, Ordering::Relaxed);
    }
}

/// Whether [`give_back`] has anything to do.
pub(crate) fn is_due() -> bool {
    LARGE.load(Ordering::Relaxed)
}

/// Returns what is free to the system. Takes milliseconds for each hundred MiB: not for async code.
pub(crate) fn give_back() {
    LARGE.store(false, Ordering::Relaxed);
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::trim();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the allocator has no other interface")]
mod glibc {
    /// Arenas beyond one a core help nobody here: the large work runs on pools of that many threads.
    const ARENAS_MAX: usize = 8;

    pub(super) fn bound(cores: usize) {
        let arenas = cores.clamp(2, ARENAS_MAX);
        let arenas = libc::c_int::try_from(arenas).expect("a small number");
        // SAFETY: `mallopt` takes two numbers and may be called at any time; an unknown option is refused.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
    }

    pub(super) fn trim() {
        // SAFETY: `malloc_trim` takes a number, is safe with any number of threads, and moves nothing that is in use.
        unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    fn resident_bytes() -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        pages.expect("the second number is resident pages") * 4096
    }

    #[test]
    fn holes_go_back_to_the_system() {
        // Small pieces, so that they lie in an arena, with some between them that stay.
        let mut pieces: Vec<Option<Vec<u8>>> = (0..64_000).map(|_| Some(vec![1; 4096])).collect();
        for (n, piece) in pieces.iter_mut().enumerate() {
            if n % 64 != 0 {
                *piece = None;
            }
        }
        let before = resident_bytes();
        give_back();
        let after = resident_bytes();
        drop(pieces);
        assert!(after + (128 << 20) < before, "{before} bytes before, {after} after");
    }
}
