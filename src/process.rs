//! What the process asks of the system for itself: to outlive a limit on files, and to end.
//!
//! A process that returns from `main`, or calls `exit`, runs the destructors of every library that it loaded, also of
//! ONNX Runtime, while threads that nobody waits for may still load a model or run one in it: they then use what was
//! destroyed, and a clean end becomes a crash. What is acknowledged is on disk at any moment, so nothing needs those
//! destructors, and no end of this program runs them.

#![expect(unsafe_code, reason = "the standard library has no such interface")]

/// Makes a write beyond the limit on the size of files (`ulimit -f`) fail, as on a full disk. Without this the system
/// ends the process with a signal.
pub(crate) fn outlive_file_limit() {
    #[cfg(unix)]
    // SAFETY: ignoring a signal installs no handler, so no code of ours runs in one; it may be called at any time.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Ends the process at once, under the feet of all its threads. What is printed by whole lines is out already.
pub(crate) fn end(code: i32) -> ! {
    // SAFETY: `_exit` takes a number, may be called from any thread, and does not return.
    unsafe { libc::_exit(code) }
}
