//! The engine's health as `grpc.health.v1` tells it, asked again and again until the server drains.
//!
//! The same round probes the engine's pools and gives free memory back. Leaves out what healthy means (the engine), and
//! `/healthz` for those who cannot ask gRPC (`metrics.rs`).

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::grpc::Grpc;
use crate::{
    allocator,
    engine::Engine,
    rpc::{
        backups_server::BackupsServer, collections_server::CollectionsServer,
        documents_server::DocumentsServer, encoder_server::EncoderServer, search_server::SearchServer,
    },
};

/// How often the engine is asked whether it is healthy.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);

/// Tells who asks `grpc.health.v1` whether the engine serves.
pub(crate) struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// The whole server and each of its services; all share one engine, so all share one state.
    const NAMES: [&'static str; 6] = [
        "",
        CollectionsServer::<Grpc>::NAME,
        DocumentsServer::<Grpc>::NAME,
        SearchServer::<Grpc>::NAME,
        EncoderServer::<Grpc>::NAME,
        BackupsServer::<Grpc>::NAME,
    ];

    pub(crate) fn new(reporter: HealthReporter) -> Self {
        Health { reporter }
    }

    async fn set(&self, status: ServingStatus) {
        for name in Self::NAMES {
            self.reporter.set_service_status(name, status).await;
        }
    }

    /// Asks the engine once, tells it, and returns whether it serves.
    pub(crate) async fn follow_once(&self, engine: &Engine) -> bool {
        let healthy = engine.healthy();
        // A command that is done at once may close the engine before this is first asked.
        if let Err(reason) = &healthy
            && !engine.is_closing()
        {
            tracing::error!(reason, "not healthy");
        }
        self.set(if healthy.is_ok() { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
        healthy.is_ok()
    }

    /// Asks the engine again and again, telling only what changed, until the server drains. Then says NOT_SERVING and ends
    /// the Watch streams, which would otherwise keep the server from stopping.
    pub(crate) async fn follow(mut self, engine: Arc<Engine>, draining: CancellationToken) {
        let mut was_healthy = self.follow_once(&engine).await;
        let mut ticks = tokio::time::interval(HEALTH_INTERVAL);
        loop {
            tokio::select! {
                () = draining.cancelled() => break,
                _ = ticks.tick() => {
                    engine.probe();
                    if allocator::is_due() {
                        drop(tokio::task::spawn_blocking(allocator::give_back));
                    }
                    // A disk that hangs must not keep the rest from being told.
                    let _ = tokio::time::timeout(HEALTH_INTERVAL, engine.examine()).await;
                    if engine.healthy().is_ok() != was_healthy {
                        let is_healthy = self.follow_once(&engine).await;
                        if is_healthy && !was_healthy {
                            tracing::info!("healthy again");
                        }
                        was_healthy = is_healthy;
                    }
                }
            }
        }
        self.set(ServingStatus::NotServing).await;
        for name in Self::NAMES {
            self.reporter.clear_service_status(name).await;
        }
    }
}
