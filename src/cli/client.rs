//! The command's way to the database: a channel to a running server, or to one inside this process (`--data`).
//!
//! Both speak the same gRPC, so a command cannot tell them apart.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::Context;
use tonic::transport::{Channel, Endpoint};

use super::{
    App,
    eval::Scratch,
    failure::{self, Stop},
    output::Output,
};
use crate::{
    config::Config,
    engine::{self, Engine, Finding},
    rpc::{
        backups_client::BackupsClient, collections_client::CollectionsClient,
        documents_client::DocumentsClient, encoder_client::EncoderClient, search_client::SearchClient,
    },
    server,
};

/// Where the CLI looks for a server unless told otherwise.
pub const URL_DEFAULT: &str = "http://127.0.0.1:7700";
/// Told otherwise by this variable.
pub const URL_VARIABLE: &str = "DISTILFACE_URL";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers may be larger than the requests that the server takes: a page of long documents.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// Which database a command works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The data folder of the configuration, opened by this process.
    Folder,
    /// A running server.
    Server {
        /// Its address, with the scheme.
        url: String,
        /// The setting that named it.
        by: NamedBy,
    },
}

/// The setting that named a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// Nobody: it is where a server is by default.
    Default,
    /// `--server`.
    Flag,
    /// [`URL_VARIABLE`].
    Variable,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Folder => f.write_str("the data folder"),
            Target::Server { url, by: NamedBy::Variable } => {
                write!(f, "the server at {url} ({URL_VARIABLE})")
            }
            Target::Server { url, .. } => write!(f, "the server at {url}"),
        }
    }
}

impl Target {
    /// From `--data`, `--server` and the environment.
    ///
    /// # Errors
    /// [`Stop::Usage`] for both at once and for addresses that are not one.
    pub fn choose(data: bool, server: Option<&str>) -> anyhow::Result<Self> {
        if data && server.is_some() {
            return Err(super::failure::usage(
                "--data opens a folder and --server asks a server: give one of them",
            ));
        }
        if data {
            return Ok(Target::Folder);
        }
        let variable = std::env::var(URL_VARIABLE).ok().filter(|v| !v.trim().is_empty());
        let (by, url) = match (server, &variable) {
            (Some(url), _) => (NamedBy::Flag, url),
            (None, Some(url)) => (NamedBy::Variable, url.as_str()),
            (None, None) => (NamedBy::Default, URL_DEFAULT),
        };
        Ok(Target::Server { url: full_url(url)?, by })
    }
}

/// `HOST:PORT` with or without `http://`.
fn full_url(given: &str) -> anyhow::Result<String> {
    let given = given.trim().trim_end_matches('/');
    let url = if given.contains("://") { given.to_owned() } else { format!("http://{given}") };
    let bad = |reason: &str| {
        super::failure::usage(format!(
            "--server {given}: {reason}; allowed: http://HOST:PORT, such as {URL_DEFAULT}"
        ))
    };
    match url.split_once("://") {
        Some(("http", rest)) if !rest.is_empty() && !rest.contains('/') => {}
        Some(("https", _)) => {
            return Err(bad("TLS is not spoken; put a proxy that speaks it in front, and connect to it"));
        }
        _ => return Err(bad("this is not an address")),
    }
    let uri: tonic::codegen::http::Uri = url.parse().map_err(|_| bad("this is not an address"))?;
    if uri.port_u16().is_none() {
        return Err(bad("the port is missing"));
    }
    Ok(url)
}

/// What a command needs of a data folder that it opens itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// One that is there, or a new one.
    Any,
    /// One that is there: a name that was mistyped must not become a folder.
    There,
    /// None, only its encoder.
    None,
}

/// An open way to the database; [`Session::close`] it.
pub struct Session {
    channel: Channel,
    engine: Option<Arc<Engine>>,
    name: String,
    /// What stands for a data folder that is not there and that nobody needs.
    _scratch: Option<Scratch>,
}

impl Session {
    /// Opens the folder or connects.
    ///
    /// # Errors
    /// [`Stop::NoServer`]; what opening the engine says, also where there is no folder and the command needs one.
    pub async fn open(app: &App) -> anyhow::Result<Self> {
        match &app.target {
            Target::Folder => {
                let mut config = app.loaded.config.clone();
                let there = engine::check_data_folder(&config.data.dir);
                let scratch = match (app.needs, there) {
                    (Needs::There, Err(error)) => return Err(crate::Error::from(error).into()),
                    (Needs::None, Err(_)) => {
                        let scratch = Scratch::new("no-data")?;
                        config.data.dir = scratch.0.join("db");
                        Some(scratch)
                    }
                    (Needs::Any, _) | (_, Ok(())) => None,
                };
                let engine = open_engine(config, &app.out).await?;
                let channel = server::in_process(Arc::clone(&engine)).await?;
                let name = "the server in this process".into();
                Ok(Session { channel, engine: Some(engine), name, _scratch: scratch })
            }
            Target::Server { url, .. } => {
                let no_server = |reason: String| Stop::NoServer { url: url.clone(), reason };
                let endpoint =
                    Endpoint::from_shared(url.clone()).map_err(|e| no_server(failure::innermost(&e)))?;
                let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
                let channel = endpoint.connect().await.map_err(|e| no_server(failure::innermost(&e)))?;
                Ok(Session { channel, engine: None, name: app.target.to_string(), _scratch: None })
            }
        }
    }

    /// Flushes and closes the folder, if this process opened one.
    ///
    /// # Errors
    /// Errors of closing the engine.
    pub async fn close(self) -> anyhow::Result<()> {
        let Session { channel, engine, _scratch, .. } = self;
        // The server inside this process goes first: it would take the engine's end for a fault.
        drop(channel);
        tokio::task::yield_now().await;
        match engine {
            Some(engine) => Ok(engine.close().await.context("closing the data folder")?),
            None => Ok(()),
        }
    }

    /// What is wrong in the data folder, if this process opened one. A server tells its own log.
    fn findings(&self) -> Vec<Finding> {
        self.engine.as_ref().map_or_else(Vec::new, |engine| engine.findings())
    }

    /// `the server at http://...`, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn collections(&self) -> CollectionsClient<Channel> {
        CollectionsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn documents(&self) -> DocumentsClient<Channel> {
        DocumentsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn search(&self) -> SearchClient<Channel> {
        SearchClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn backups(&self) -> BackupsClient<Channel> {
        BackupsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn encoder(&self) -> EncoderClient<Channel> {
        EncoderClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }
}

/// Opens the engine beside the async threads: it reads files and loads a model.
pub async fn open_engine(config: Config, out: &Output) -> anyhow::Result<Arc<Engine>> {
    let slow = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        out.note("opening the data folder and the model...");
        std::future::pending::<()>().await;
    };
    let open = tokio::task::spawn_blocking(move || Engine::open(&config));
    tokio::select! {
        engine = open => Ok(engine.context("opening the data folder failed; this is a bug")??),
        () = slow => unreachable!("it never ends"),
    }
}

/// The part that answers the first SIGINT while a command works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInterrupt {
    /// The command is dropped where it stands.
    Stop,
    /// The command sees it itself and finishes what was begun.
    Drain,
}

/// Runs a command on an open database; closes it whatever happens, also when interrupted.
///
/// # Errors
/// The command's, [`Stop::Interrupted`], or what closing says.
pub async fn with_session(
    app: &App,
    on_interrupt: OnInterrupt,
    work: impl AsyncFnOnce(&Session) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let session = tokio::select! {
        session = Session::open(app) => session?,
        () = app.interrupt.cancelled() => return Err(Stop::Interrupted.into()),
    };
    let result = tokio::select! {
        result = work(&session) => result,
        () = app.interrupt.cancelled(), if on_interrupt == OnInterrupt::Stop => Err(Stop::Interrupted.into()),
    };
    let findings = session.findings();
    let closed = session.close().await;
    let result = match &app.target {
        Target::Folder => result.map_err(failure::of_this_process),
        Target::Server { .. } => result,
    };
    tell_findings(&findings, result.as_ref().err(), &app.out);
    result.and(closed)
}

/// Says what is wrong in the folder, once: what the error says already is left to that.
pub fn tell_findings(findings: &[Finding], error: Option<&anyhow::Error>, out: &Output) {
    let said = error.map(failure::words).unwrap_or_default();
    for Finding { what, remedy } in findings {
        let core = what.split_once(" is not served: ").map_or(what.as_str(), |(_, core)| core);
        if !said.contains(core) {
            out.warn(&format!("{what}; {remedy}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_completed_or_refused() {
        assert_eq!(full_url("127.0.0.1:1").unwrap(), "http://127.0.0.1:1");
        assert_eq!(full_url("http://[::1]:1/").unwrap(), "http://[::1]:1");
        for bad in [
            "",
            "http://",
            "https://a:1",
            "ftp://a:1",
            "http://a:1/x",
            "localhost",
            "a b:1",
            "http://a:99999",
        ] {
            let error = full_url(bad).unwrap_err().to_string();
            assert!(error.contains("http://HOST:PORT"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_folder_and_a_server_cannot_both_be_meant() {
        assert!(Target::choose(true, Some("http://127.0.0.1:1")).is_err());
        assert_eq!(Target::choose(true, None).unwrap(), Target::Folder);
        let target = Target::choose(false, Some("127.0.0.1:1")).unwrap();
        assert_eq!(target, Target::Server { url: "http://127.0.0.1:1".into(), by: NamedBy::Flag });
    }
}
