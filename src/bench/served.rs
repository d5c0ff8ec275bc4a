//! The server that is measured, in this process and reached over TCP as by any client.

use std::{path::Path, sync::Arc, time::Duration};

use tonic::transport::{Channel, Endpoint};

use super::{BenchError, COLLECTION, Note, REQUEST_DOCUMENTS, Result};
use crate::{
    config::Config,
    encoder::Encoder,
    engine::{Engine, NewCollection},
    eval::beir::CorpusDocument,
    proto, rpc, server,
};

/// Opening that takes longer is told.
const SLOW: Duration = Duration::from_secs(2);

/// A server on a free loopback port over a database of its own.
#[derive(Debug)]
pub struct Served {
    /// Its engine.
    pub engine: Arc<Engine>,
    running: server::Running,
    /// A connection to it.
    pub channel: Channel,
}

impl Served {
    /// Starts it over a database in `folder`, which is empty.
    ///
    /// # Errors
    /// Engine and server errors; [`BenchError::Connect`].
    pub async fn start(config: &Config, folder: &Path, note: Note<'_>) -> Result<Self> {
        let collection = NewCollection { name: COLLECTION.into(), ..NewCollection::default() };
        Self::start_with(config, folder, note, collection).await
    }

    /// [`Served::start`] with another collection than the default one.
    ///
    /// # Errors
    /// As [`Served::start`].
    pub async fn start_with(
        config: &Config,
        folder: &Path,
        note: Note<'_>,
        collection: NewCollection,
    ) -> Result<Self> {
        let mut config = config.clone();
        folder.clone_into(&mut config.data.dir);
        config.server.listen = ([127, 0, 0, 1], 0).into();
        config.server.metrics_listen = None;
        // What is asked again must be encoded again.
        config.encoder.query_cache = 0;
        let mut opening = tokio::task::spawn_blocking(move || Engine::open(&config));
        let opened = tokio::select! {
            opened = &mut opening => opened,
            () = tokio::time::sleep(SLOW) => {
                note("opening a database and the model...");
                opening.await
            }
        };
        let engine = opened??;
        engine.create_collection(collection).await?;
        let running = server::start(Arc::clone(&engine)).await?;
        let unreachable = |e: tonic::transport::Error| BenchError::Connect { reason: e.to_string() };
        let endpoint = Endpoint::from_shared(format!("http://{}", running.address)).map_err(unreachable)?;
        let channel = endpoint.tcp_nodelay(true).connect().await.map_err(unreachable)?;
        Ok(Served { engine, running, channel })
    }

    /// The encoder of the server.
    ///
    /// # Errors
    /// [`BenchError::NoEncoder`].
    pub fn encoder(&self) -> Result<Arc<Encoder>> {
        self.engine.encoder().ok_or(BenchError::NoEncoder)
    }

    /// What it encodes on; empty without an encoder.
    pub fn device(&self) -> String {
        self.engine.encoder().map_or_else(String::new, |e| e.device().device.clone())
    }

    /// Ends it.
    ///
    /// # Errors
    /// Server errors.
    pub async fn stop(self) -> Result<()> {
        let Served { running, channel, engine } = self;
        drop((channel, engine));
        Ok(running.stop().await?)
    }
}

/// Ingests the documents as fast as the server takes them.
///
/// # Errors
/// [`BenchError::Call`], [`BenchError::Document`], [`BenchError::Lost`].
pub async fn send(channel: &Channel, corpus: &[CorpusDocument]) -> Result<()> {
    let mut client = rpc::documents_client::DocumentsClient::new(channel.clone());
    let requests: Vec<proto::IngestRequest> = corpus
        .chunks(REQUEST_DOCUMENTS)
        .zip(0..)
        .map(|(some, sequence)| proto::IngestRequest {
            collection: COLLECTION.into(),
            sequence,
            documents: some
                .iter()
                .map(|d| proto::Document {
                    id: d.id.clone(),
                    title: d.title.clone(),
                    text: d.text.clone(),
                    ..proto::Document::default()
                })
                .collect(),
            ..Default::default()
        })
        .collect();
    let mut answers = client.ingest(tokio_stream::iter(requests)).await?.into_inner();
    let mut stored = 0;
    while let Some(answer) = answers.message().await? {
        for result in answer.results {
            if !result.error.is_empty() {
                return Err(BenchError::Document { id: result.id, reason: result.error });
            }
            stored += 1;
        }
    }
    match corpus.len() {
        sent if sent == stored => Ok(()),
        sent => Err(BenchError::Lost { stored, sent }),
    }
}
