//! How many files this process may have open, and what that allows.

/// Handles that a server needs besides its collections: standard streams, sockets, the catalogue, clients.
const OTHERS: u64 = 40;
/// Handles of an open collection, with one to spare for what it reads and writes at times.
const PER_COLLECTION: u64 = 4;

/// Collections that may be open at once, at least 1.
pub(crate) fn collections_max() -> usize {
    let limit = files_max();
    usize::try_from(limit.saturating_sub(OTHERS) / PER_COLLECTION).unwrap_or(usize::MAX).max(1)
}

#[cfg(unix)]
fn files_max() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(not(unix))]
fn files_max() -> u64 {
    u64::MAX
}
