//! Whether the engine serves: what is known to be wrong, and the probes and looks at the disk that find it out.
//!
//! [`Engine::healthy`] and [`Engine::findings`] only report what is known. What watches the pools and the disk in the
//! background is in `vitals.rs`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{Engine, Finding};

impl Engine {
    /// Looks at the disk, and lets the catalogue take changes again once there is room. What it finds, [`Engine::healthy`] says. One look at a time: a second one answers at once.
    pub async fn examine(&self) {
        if self.is_closing() || self.examining.swap(true, Ordering::SeqCst) {
            return;
        }
        let (names, looking) = (Arc::clone(&self.names), Looking(Arc::clone(&self.examining)));
        let looked = self.threads.work(move || {
            // Goes with this closure: when the look is over, and also if it never begins since nobody waits any more.
            let _looking = looking;
            names.examine();
        });
        // A look that panicked is logged where it ran, and the next one tries again.
        let _ = looked.await;
    }

    /// Whether every collection takes writes and everything that [`Engine::probe`] looks at moves; the reason if not.
    /// Only looks at what is known. For the health service.
    ///
    /// # Errors
    /// The reason, as a sentence.
    pub fn healthy(&self) -> std::result::Result<(), String> {
        if self.is_closing() {
            return Err("shutting down".to_owned());
        }
        self.names.failed().or_else(|| self.vitals.fault(self.encoders.as_deref())).map_or(Ok(()), Err)
    }

    /// Sends small jobs through every pool, every writer and to the disk, unless they are under way already. What does
    /// not answer within `server.health_timeout` shows in [`Engine::healthy`] until it does. Waits for nothing; call it
    /// every second or so.
    pub fn probe(&self) {
        if !self.is_closing() {
            self.vitals.probe(&self.threads, &self.names);
            self.names.close_idle(self.config.data.close_after);
            self.names.let_go_of_log();
        }
    }

    /// What is wrong in the data folder and what to do about it: collections that cannot be opened, folders that belong
    /// to none, a catalogue that had to be made anew. What is not named here is served.
    pub fn findings(&self) -> Vec<Finding> {
        self.names.findings()
    }
}

/// A look at the disk that is under way, or waits for its turn; dropped, there may be another.
struct Looking(Arc<AtomicBool>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}
