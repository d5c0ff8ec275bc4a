//! The seeds of tests that lose power: many of them, spread over the processor's cores, and the one that shows a fault
//! is named.
//!
//! `DISTILFACE_TEST_SEEDS` asks for so many times as many, `DISTILFACE_TEST_SEED` for one alone.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Calls `run` with every seed below `count`, several at once. The seeds that were tried.
///
/// # Panics
/// As `run` does with the first seed that shows a fault, after its number was printed.
pub(crate) fn each(count: u64, run: impl Fn(u64) + Sync) -> u64 {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    if let Some(seed) = number("DISTILFACE_TEST_SEED") {
        run(seed);
        return 1;
    }
    let count = count.saturating_mul(number("DISTILFACE_TEST_SEEDS").unwrap_or(1));
    let next = AtomicU64::new(0);
    let fault = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= count {
                        return;
                    }
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
                        println!("DISTILFACE_TEST_SEED={seed} shows it");
                        next.store(count, Ordering::SeqCst);
                        fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
                        return;
                    }
                }
            });
        }
    });
    match fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(panic) => resume_unwind(panic),
        None => count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_tried_once_and_a_fault_ends_it() {
        if std::env::var_os("DISTILFACE_TEST_SEED").is_some() {
            return;
        }
        let tried = Mutex::new(Vec::new());
        let count = each(50, |seed| tried.lock().unwrap().push(seed));
        let mut tried = tried.into_inner().unwrap();
        tried.sort_unstable();
        assert_eq!(tried, (0..count).collect::<Vec<_>>());
        let tried = AtomicU64::new(0);
        let shown = catch_unwind(AssertUnwindSafe(|| {
            each(1_000_000, |seed| {
                tried.fetch_add(1, Ordering::SeqCst);
                // Others go on while the first one tells of its fault, which takes long on a busy machine.
                std::thread::sleep(std::time::Duration::from_millis(1));
                assert_ne!(seed, 20, "this one shows it");
            })
        }));
        assert!(shown.is_err() && tried.into_inner() < 100_000);
    }
}
