//! A watchdog: what takes too long is told with everything else that is under way, and fails.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

/// How long one call may take on a busy machine; what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(240);

#[derive(Debug, Default)]
pub(crate) struct Watch {
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    last: u64,
    calls: BTreeMap<u64, (String, Instant)>,
}

impl Watch {
    /// Waits for something.
    ///
    /// # Panics
    /// If it takes too long, with everything that is waited for.
    pub(crate) async fn call<T>(&self, what: String, future: impl Future<Output = T>) -> T {
        let number = {
            let mut running = self.running.lock().unwrap();
            running.last += 1;
            let number = running.last;
            running.calls.insert(number, (what, Instant::now()));
            number
        };
        let Ok(result) = tokio::time::timeout(PATIENCE, future).await else {
            let running = self.running.lock().unwrap().calls.clone();
            let lines: String = running
                .values()
                .map(|(what, since)| format!("\n  {:.1?}: {what}", since.elapsed()))
                .collect();
            panic!("something hangs; under way are:{lines}");
        };
        self.running.lock().unwrap().calls.remove(&number);
        result
    }
}
