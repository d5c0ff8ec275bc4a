//! Background work lets the system's scheduler put other threads first.
//!
//! On Linux niceness belongs to a thread and is inherited by the threads it starts; elsewhere it belongs to the
//! process, and nothing is done.

/// Niceness of work that nobody waits for: a tenth of a normal thread's share where both want a core.
pub(crate) const BACKGROUND: u8 = 10;

/// Niceness of work that others wait for once too much of it waits: a third of a normal thread's share.
pub(crate) const SOON: u8 = 5;

/// Raises the niceness of this thread, 0 to 19. Where the system refuses, nothing changes but a line in the log.
pub(crate) fn lower(niceness: u8) {
    #[cfg(target_os = "linux")]
    if niceness > 0
        && let Err(e) = rustix::process::setpriority_process(None, i32::from(niceness))
    {
        tracing::warn!(error = %e, "background work runs at the priority of queries");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = niceness;
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_lowered_with_those_it_starts_and_no_others() {
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let before = niceness();
        let inside = std::thread::spawn(move || {
            // As high as it is already, or it could not be raised.
            let most = u8::try_from(before.max(i32::from(BACKGROUND))).unwrap();
            lower(most);
            (most, niceness(), std::thread::spawn(niceness).join().unwrap())
        });
        let (asked, own, inherited) = inside.join().unwrap();
        assert_eq!((own, inherited), (i32::from(asked), i32::from(asked)));
        assert_eq!(niceness(), before);
    }
}
