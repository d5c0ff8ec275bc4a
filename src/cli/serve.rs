//! `distilface serve`: the engine behind gRPC until a signal comes.
//!
//! The first SIGINT or SIGTERM stops accepting, gives running requests the drain timeout and closes the data folder;
//! a second one ends the process at once (what was acknowledged is on disk either way).

use serde_json::json;
use tracing::info;

use super::{App, client, failure::Stop, output::Style};
use crate::server;

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
    running.stop().await?;
    Ok(())
}
