//! `distilface serve` serves the engine over gRPC until a signal arrives.
//!
//! The first SIGINT or SIGTERM stops accepting, gives running requests the drain timeout and closes the data folder;
//! a second one ends the process at once (what was acknowledged is on disk either way). Each step of the end has a
//! bound; after the last of them the process ends anyway, with an error code and a line that says what hung.

use std::time::Duration;

use serde_json::json;
use tracing::info;

use super::{
    App, client,
    failure::{self, Stop},
    output::Style,
};
use crate::server;

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
    let mut running = match server::start(engine.clone()).await {
        Ok(running) => running,
        Err(error) => {
            engine.close().await?;
            return Err(error.into());
        }
    };
    watch_end(app, &running)?;
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
            std::process::exit(HUNG);
        }
        return Err(error.into());
    }
    Ok(())
}

/// Ends the process when its end takes longer than it may, even if every async thread hangs: this one is not async.
fn watch_end(app: &App, running: &server::Running) -> anyhow::Result<()> {
    let (stage, bound, interrupt) = (running.stage(), running.stop_bound() + MARGIN, app.interrupt.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new().name("end-watch".to_owned()).spawn(move || {
        runtime.block_on(async {
            interrupt.cancelled().await;
            tokio::time::sleep(bound).await;
        });
        tracing::error!(
            doing = stage.now(),
            waited_s = bound.as_secs_f64(),
            "the server does not end by itself; the process ends now, what was acknowledged is on disk"
        );
        std::process::exit(HUNG);
    })?;
    Ok(())
}
