//! Makes the first SIGINT or SIGTERM end every command.
//!
//! A command that has something to finish hears it as [`App::interrupt`] and ends by itself; a second signal then ends
//! the process. A command that only computes on its own thread hears nothing, so the signal ends the process at once.

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::{
    App,
    eval::Scratch,
    failure::{self, Stop},
    output::Output,
};
use crate::process;

/// What the first signal does; the second ends the process in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// It is told as [`App::interrupt`].
    IsTold,
    /// It ends the process.
    Ends,
}

/// Runs a command on async threads; it looks at [`App::interrupt`].
pub(super) fn block_on(app: &App, command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    follow(app)?;
    let result = runtime.block_on(command);
    // Not waiting: after an interrupt, a model may still be loading on a thread that nobody needs any more.
    runtime.shutdown_background();
    result
}

/// Runs work that computes on this thread and never looks at [`App::interrupt`]: the first signal ends the process.
pub(super) fn stoppable<T>(app: &App, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    listen(app, First::Ends)?;
    work()
}

/// Makes the first signal [`App::interrupt`]. Listens on a thread and a runtime of its own: a command whose threads all
/// hang must still hear a signal.
pub(super) fn follow(app: &App) -> anyhow::Result<()> {
    listen(app, First::IsTold)
}

fn listen(app: &App, first: First) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (interrupt, out) = (app.interrupt.clone(), app.out.clone());
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if runtime.block_on(second(&interrupt, first)).is_ok() {
            Scratch::remove_all();
            let interrupted = Stop::Interrupted.into();
            let code = if first == First::Ends { failure::report(&out, &interrupted) } else { EXIT };
            process::end(code.into());
        }
    })?;
    Ok(())
}

/// Exit code after a second signal.
const EXIT: u8 = 130;

/// Returns when the process must end. An error: without handlers the system's own do their work.
async fn second(interrupt: &CancellationToken, first: First) -> std::io::Result<()> {
    loop {
        next().await?;
        if first == First::Ends || interrupt.is_cancelled() {
            return Ok(());
        }
        interrupt.cancel();
    }
}

#[cfg(unix)]
async fn next() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn next() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}

impl App {
    /// What `work` answers. It is dropped where it stands when the first signal comes.
    ///
    /// # Errors
    /// Those of `work`; [`Stop::Interrupted`].
    pub(super) async fn unless_interrupted<T>(
        &self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        tokio::select! {
            biased;
            () = self.interrupt.cancelled() => Err(Stop::Interrupted.into()),
            answer = work => answer,
        }
    }

    /// The same for work that blocks, such as reading stdin. It goes on after a signal on a thread that nobody waits for.
    ///
    /// # Errors
    /// Those of `work`; [`Stop::Interrupted`].
    pub(super) async fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let work = tokio::task::spawn_blocking(work);
        self.unless_interrupted(async {
            work.await.context("a thread of this command ended; this is a bug")?
        })
        .await
    }

    /// Asks on a terminal. `None` where nobody can answer.
    ///
    /// # Errors
    /// Reading the answer; [`Stop::Interrupted`].
    pub(super) async fn confirm(&self, question: &str) -> anyhow::Result<Option<bool>> {
        if !self.out.can_ask() {
            return Ok(None);
        }
        self.out.ask(question)?;
        let read = || {
            let mut answer = String::new();
            std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
            Ok(answer)
        };
        let asked = Asked(&self.out);
        let answer = self.beside(read).await?;
        // The answer ended its line itself.
        std::mem::forget(asked);
        Ok(Some(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes" | "YES")))
    }
}

/// A question that nobody answered yet; what is printed next goes below it.
struct Asked<'a>(&'a Output);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.end_line();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::{client::Target, output::ColorChoice},
        config::Loaded,
    };

    fn app() -> App {
        App {
            out: Output::new(false, true, ColorChoice::Never),
            loaded: Loaded::read(None, std::iter::empty(), &[]).unwrap(),
            target: Target::Folder,
            interrupt: CancellationToken::new(),
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_an_answer_hears_the_first_signal() {
        let app = app();
        assert_eq!(app.beside(|| Ok(7)).await.unwrap(), 7);
        let (nobody_answers, answer) = std::sync::mpsc::channel::<()>();
        let waiting = app.beside(move || Ok(answer.recv()?));
        let signal = async { app.interrupt.cancel() };
        let (told, ()) = tokio::join!(waiting, signal);
        let verdict = failure::judge(&told.unwrap_err());
        assert_eq!((verdict.kind, verdict.exit), ("interrupted", 130));
        drop(nobody_answers);
    }
}
