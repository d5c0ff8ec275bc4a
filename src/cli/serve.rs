//! `distilface serve` serves the engine over gRPC until a signal arrives.
//!
//! The first SIGINT or SIGTERM stops accepting, gives running requests the drain timeout and closes the data folder;
//! a second one ends the process at once (what was acknowledged is on disk either way). Each step of the end has a
//! bound; after the last of them the process ends anyway, with an error code and a line that says what hung.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    App, client,
    failure::{self, Stop},
    output::Style,
};
use crate::{engine::Engine, process, server};

/// How much later than its own bounds the end may come before the process is ended from outside.
const MARGIN: Duration = Duration::from_secs(5);

/// Exit code of a process that could not end as it should.
const HUNG: i32 = 70;

/// Run the server
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// gRPC address; port 0 takes a free one [default: 127.0.0.1:7700]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<String>,
    /// Address of Prometheus metrics over HTTP, or "off" [default: 127.0.0.1:7701]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) metrics_listen: Option<String>,
    /// Allow addresses that other machines can reach: the server has no authentication
    #[arg(long)]
    pub(super) allow_remote: bool,
}

pub async fn run(app: &App, _args: &ServeArgs) -> anyhow::Result<()> {
    let config = app.loaded.config.clone();
    let engine = tokio::select! {
        engine = client::open_engine(config, &app.out) => engine?,
        () = app.interrupt.cancelled() => return Err(Stop::Interrupted.into()),
    };
    serve(app, engine).await
}

/// Serves an open engine until the first signal.
async fn serve(app: &App, engine: Arc<Engine>) -> anyhow::Result<()> {
    let mut running = match server::start(engine.clone()).await {
        Ok(running) => running,
        Err(error) => {
            engine.close().await?;
            return Err(error.into());
        }
    };
    let (stage, bound) = (running.stage(), running.stop_bound() + MARGIN);
    watch_end(app.interrupt.clone(), bound, move || stage.now(), process::end)?;
    let metrics = running.metrics_address.map(|a| format!("http://{a}/metrics"));
    if app.out.is_json() {
        app.out
            .json_line(&json!({ "address": format!("http://{}", running.address), "metrics": metrics }))?;
    } else {
        let address = app.out.paint(Style::Bold, &format!("http://{}", running.address));
        app.out.line(&format!("listening on {address}"))?;
        if let Some(metrics) = metrics {
            app.out.line(&format!("metrics at {metrics}"))?;
        }
        app.out.note("Ctrl-C stops it, letting running requests finish; a second one stops at once.");
    }
    tokio::select! {
        () = app.interrupt.cancelled() => {}
        error = running.failed() => {
            engine.close().await?;
            return Err(crate::Error::from(error).into());
        }
    }
    info!(drain_timeout_s = app.loaded.config.server.drain_timeout.as_secs_f64(), "stopping");
    app.out.note("stopping: running requests finish first");
    if let Err(error) = running.stop().await {
        let hangs = matches!(&error, server::ServerError::CloseTimeout { .. });
        if hangs {
            tracing::error!(%error, "the process ends with threads that hang");
            failure::report(&app.out, &error.into());
            // Whatever is dropped from here on might wait for them.
            process::end(HUNG);
        }
        return Err(error.into());
    }
    Ok(())
}

/// Calls `end` with [`HUNG`] when `bound` has passed since the interrupt, even if every async thread hangs: this one is
/// not async. `doing` says what the server hangs in. A process that ends in time takes this thread with it.
fn watch_end<T: 'static>(
    interrupt: CancellationToken,
    bound: Duration,
    doing: impl FnOnce() -> &'static str + Send + 'static,
    end: impl FnOnce(i32) -> T + Send + 'static,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new().name("end-watch".to_owned()).spawn(move || {
        runtime.block_on(overdue(&interrupt, bound));
        tracing::error!(
            doing = doing(),
            waited_s = bound.as_secs_f64(),
            "the server does not end by itself; the process ends now, what was acknowledged is on disk"
        );
        end(HUNG);
    })?;
    Ok(())
}

/// Returns when `bound` has passed since the interrupt.
async fn overdue(interrupt: &CancellationToken, bound: Duration) {
    interrupt.cancelled().await;
    tokio::time::sleep(bound).await;
}

#[cfg(test)]
mod tests {
    use std::{
        pin::{Pin, pin},
        task::{Context, Waker},
    };

    use super::*;
    use crate::{
        cli::{
            ColorChoice, Output,
            client::{Needs, Target},
        },
        config::{Config, Loaded, NO_MODEL},
        engine::NewCollection,
    };

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "it ends its process; run by the test after it"]
    async fn ends_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.data.dir = dir.path().join("db");
        config.encoder.model = NO_MODEL.into();
        config.server.listen = "127.0.0.1:0".parse().unwrap();
        config.server.metrics_listen = None;
        config.server.drain_timeout = Duration::ZERO;
        config.server.close_timeout = Duration::from_millis(100);
        let engine = Engine::open(&config).unwrap();
        let name = "stuck".to_owned();
        let new = NewCollection { name, vectors_only: true, dimension: Some(2), ..Default::default() };
        engine.create_collection(new).await.unwrap();
        let _held = engine.occupy_writer("stuck");
        let app = App {
            out: Output::new(false, false, ColorChoice::Never),
            loaded: Loaded { config, file: None, origins: Default::default() },
            target: Target::Folder,
            needs: Needs::Any,
            interrupt: CancellationToken::new(),
        };
        app.interrupt.cancel();
        serve(&app, engine).await.unwrap();
    }

    /// Runs one test of this file in a process of its own, which ends with [`HUNG`]; what it said.
    #[track_caller]
    fn said_at_the_end(test: &str) -> String {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([&*format!("cli::serve::tests::{test}"), "--exact", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(HUNG), "{said}");
        said
    }

    #[test]
    fn a_server_that_cannot_close_its_data_folder_ends_with_a_code_of_its_own_and_says_what_hangs() {
        let said = said_at_the_end("ends_alone");
        assert!(said.contains("server.close_timeout") && said.contains("collection stuck"), "{said}");
    }

    #[tokio::test]
    async fn the_end_is_overdue_when_its_bound_has_passed_since_the_interrupt_and_not_before() {
        let poll = |end: Pin<&mut dyn Future<Output = ()>>| end.poll(&mut Context::from_waker(Waker::noop()));
        let interrupt = CancellationToken::new();
        let (at_once, in_a_day) = (Duration::ZERO, Duration::from_secs(86_400));
        let (mut short, mut long) = (pin!(overdue(&interrupt, at_once)), pin!(overdue(&interrupt, in_a_day)));
        assert!(poll(short.as_mut()).is_pending(), "a server that serves has no end that could hang");
        interrupt.cancel();
        assert!(poll(long.as_mut()).is_pending());
        short.await;
        assert!(poll(long.as_mut()).is_pending());
    }

    #[tokio::test]
    #[ignore = "it ends its process; run by the test after it"]
    async fn hangs_alone() {
        tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
        let interrupt = CancellationToken::new();
        watch_end(interrupt.clone(), Duration::ZERO, || "waiting for running requests", process::end)
            .unwrap();
        interrupt.cancel();
        // The only async thread of this process, and it never waits again.
        loop {
            std::thread::park();
        }
    }

    #[test]
    fn a_process_whose_async_threads_all_hang_ends_with_a_code_of_its_own_and_says_what_it_was_doing() {
        let said = said_at_the_end("hangs_alone");
        assert!(
            said.contains("waiting for running requests") && said.contains("does not end by itself"),
            "{said}"
        );
    }
}
