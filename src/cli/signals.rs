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
    let signals = {
        let _inside = runtime.enter();
        Signals::listen()
    };
    // Where the system takes no handlers, its own do their work: a signal ends the process.
    let Ok(mut signals) = signals else { return Ok(()) };
    let (interrupt, out) = (app.interrupt.clone(), app.out.clone());
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if runtime.block_on(until_the_end(&mut signals, &interrupt, first)).is_some() {
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

/// Returns when the process must end; `None` when no signal can come any more.
async fn until_the_end(signals: &mut Signals, interrupt: &CancellationToken, first: First) -> Option<()> {
    loop {
        signals.next().await?;
        if first == First::Ends || interrupt.is_cancelled() {
            return Some(());
        }
        interrupt.cancel();
    }
}

/// SIGINT and SIGTERM from the moment that this is made. It lives as long as the process, since what comes between two
/// receivers is lost. Of several signals of one kind that come before the first of them is seen, the system makes one.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// To be called within a runtime.
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next signal, also one that came before this call.
    async fn next(&mut self) -> Option<()> {
        tokio::select! {
            heard = self.interrupt.recv() => heard,
            heard = self.terminate.recv() => heard,
        }
    }
}

/// Ctrl-C from the moment that this is made.
#[cfg(not(unix))]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(not(unix))]
impl Signals {
    /// To be called within a runtime.
    fn listen() -> std::io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Signals)
    }

    /// The next signal, also one that came before this call.
    async fn next(&mut self) -> Option<()> {
        self.0.recv().await
    }
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
    pub(super) async fn blocking<T: Send + 'static>(
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
        let answer = self.blocking(read).await?;
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
        cli::{
            client::{Needs, Target},
            output::ColorChoice,
        },
        config::Loaded,
    };

    fn app() -> App {
        App {
            out: Output::new(false, true, ColorChoice::Never),
            loaded: Loaded::read(None, std::iter::empty(), &[]).unwrap(),
            target: Target::Folder,
            needs: Needs::Any,
            interrupt: CancellationToken::new(),
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_an_answer_hears_the_first_signal() {
        let app = app();
        assert_eq!(app.blocking(|| Ok(7)).await.unwrap(), 7);
        let (nobody_answers, answer) = std::sync::mpsc::channel::<()>();
        let waiting = app.blocking(move || Ok(answer.recv()?));
        let signal = async { app.interrupt.cancel() };
        let (told, ()) = tokio::join!(waiting, signal);
        let verdict = failure::judge(&told.unwrap_err());
        assert_eq!((verdict.kind, verdict.exit), ("interrupted", 130));
        drop(nobody_answers);
    }
    #[cfg(unix)]
    #[tokio::test]
    #[ignore = "it sends signals to its process; run by the test after it"]
    async fn a_signal_between_two_looks() {
        use tokio::signal::unix::{SignalKind, signal};
        let raise = |signal| rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
        let mut signals = Signals::listen().unwrap();
        // Sees a signal when every receiver that is there has got it.
        let mut witness = signal(SignalKind::interrupt()).unwrap();
        let interrupt = CancellationToken::new();
        raise(rustix::process::Signal::INT);
        witness.recv().await.unwrap();
        // Dropped at the moment at which the first signal is told, as late as it can be without hearing a second.
        tokio::select! {
            biased;
            () = interrupt.cancelled() => {}
            _ = until_the_end(&mut signals, &interrupt, First::IsTold) => panic!("one signal ends nothing"),
        }
        raise(rustix::process::Signal::INT);
        witness.recv().await.unwrap();
        until_the_end(&mut signals, &interrupt, First::IsTold).await.unwrap();
        raise(rustix::process::Signal::TERM);
        until_the_end(&mut signals, &interrupt, First::IsTold).await.unwrap();
        println!("all were heard");
    }

    #[cfg(unix)]
    #[test]
    fn a_second_signal_right_after_the_first_is_never_lost() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["cli::signals::tests::a_signal_between_two_looks", "--exact", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("all were heard"), "{said}");
    }
}
