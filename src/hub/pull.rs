//! A pull downloads a model of a Hugging Face hub into the hub's cache, checks its files, and imports them as a model
//! directory.
//!
//! The hub's own tools share the cache. All files are of one commit; the weights come last, after the small files have
//! shown that the encoder is one we can run. Promises: an interrupted download continues where it was, in this pull or
//! the
//! next; no file whose SHA-256 or size is not what the hub says stays in the cache; every wait is bounded. Leaves out:
//! uploads, datasets, weights in other forms.
//!
//! What `hf-hub` 0.4 can do to us: it panics for an endpoint that is no URL (`environment` refuses those) and
//! for a redirect without a target. It compares no sums: we do. It takes a partial file that is already whole, or too
//! long, for an error: we delete it and ask again. It has no time limit on a silent connection: the caller must be able
//! to walk away, and nothing is lost when it does. It takes a proxy from the environment, but heeds no `NO_PROXY`. It takes names in the cache from the hub's headers, and shows the
//! token to the host that the hub redirects to: the endpoint must be one you trust.

mod environment;
mod error;
mod failure;
mod repository;

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use hf_hub::{
    Cache, Repo, RepoType,
    api::{
        Progress,
        sync::{ApiBuilder, ApiError, ApiRepo},
    },
};
use serde_json::Value;

pub use self::{error::PullError, repository::Repository};
use self::{
    failure::Failure,
    repository::{Listed, Wanted},
};
use super::{ImportOptions, import};
use crate::model::{ModelDir, ModelError, TOKENIZER_FILE, WEIGHTS_FILE, checksum::FileSum};

/// Attempts for one request.
const ATTEMPTS: u32 = 5;
/// Before the second attempt; doubled before each further one, unless the hub names a time.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that we accept; a longer one that a hub asks for is reported to the user.
const PAUSE_MAX: Duration = Duration::from_secs(90);
const SHA256_DIGITS: usize = 64;

/// A hub and the cache of its files.
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    token: Option<String>,
    offline: bool,
    /// Sleeps, but in tests.
    pause: Box<dyn Fn(Duration) + Send + Sync>,
}

/// Progress of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PullEvent {
    /// Bytes of a file arrive.
    Downloading {
        /// Path in the repository.
        file: String,
        /// Bytes that are in the cache.
        done: u64,
        /// Size of the file in bytes.
        total: u64,
    },
    /// The hub is busy or the connection broke; we ask again after `pause`.
    Waiting {
        /// The error that the last attempt met.
        reason: String,
        /// Time until the next attempt.
        pause: Duration,
    },
}

/// A model in the cache, whole and checked.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The repository that was asked for.
    pub repository: Repository,
    /// Which commit that is.
    pub commit: String,
    /// A Hugging Face directory.
    pub folder: PathBuf,
}

impl Pulled {
    /// [`ModelDir::import`] of it, named after the repository, with the repository and its commit as the source, unless
    /// the options say otherwise.
    ///
    /// # Errors
    /// Those of [`ModelDir::import`].
    pub fn import(&self, home: &Path, options: ImportOptions) -> Result<ModelDir, ModelError> {
        let name = options.name.or_else(|| Some(self.repository.name().to_owned()));
        let source = options.source.or_else(|| Some(format!("{}@{}", self.repository.id, self.commit)));
        ModelDir::import(home, &self.folder, ImportOptions { name, source, ..options })
    }
}

impl Hub {
    fn new(endpoint: &str, cache: PathBuf, token: Option<String>, offline: bool) -> Self {
        Hub { endpoint: endpoint.to_owned(), cache, token, offline, pause: Box::new(thread::sleep) }
    }

    /// Brings a model into the cache. Blocks; cost: the download of what is not there, and one reading of what is.
    ///
    /// # Errors
    /// [`PullError`]s; [`ModelError::Unsupported`] for an encoder that we cannot run, before its weights are fetched.
    pub fn pull(
        &self,
        repository: &Repository,
        tell: &mut dyn FnMut(PullEvent),
    ) -> Result<Pulled, PullError> {
        if self.offline {
            return self.cached(repository);
        }
        let api = |revision: &str| {
            let builder = ApiBuilder::from_cache(Cache::new(self.cache.clone()))
                .with_endpoint(self.endpoint.clone())
                .with_token(self.token.clone())
                .with_progress(false);
            let api = builder.build().map_err(|error| self.protocol(error.to_string()))?;
            Ok::<_, PullError>(api.repo(repo(repository, revision)))
        };
        let (commit, siblings) = self.describe(repository, &api(&repository.revision)?, tell)?;
        let wanted = Wanted::choose(repository, &siblings)?;
        let fetch =
            Fetch { hub: self, repository, api: api(&commit)?, folder: self.snapshot(repository, &commit) };
        for file in &wanted.small {
            fetch.file(file, tell)?;
        }
        import::check_encoder(&fetch.folder)?;
        fetch.file(&wanted.weights, tell)?;
        // Only now, so that a revision in the cache is always complete.
        Cache::new(self.cache.clone())
            .repo(repo(repository, &repository.revision))
            .create_ref(&commit)
            .map_err(|source| PullError::Cache { path: self.cache.clone(), source })?;
        Ok(Pulled { repository: repository.clone(), commit, folder: fetch.folder })
    }

    /// Commit and files of a repository.
    fn describe(
        &self,
        repository: &Repository,
        api: &ApiRepo,
        tell: &mut dyn FnMut(PullEvent),
    ) -> Result<(String, Value), PullError> {
        let answer = self.patiently(tell, |_| {
            let response = api.info_request().query("blobs", "true").call();
            let response = response.map_err(|error| Failure::of(ApiError::from(Box::new(error))))?;
            response.into_json::<Value>().map_err(|error| Failure::Protocol(error.to_string()))
        });
        let mut answer = answer.map_err(|(failure, asked)| match failure {
            Failure::Status { code: 404, word, .. } if word.as_deref() == Some("RevisionNotFound") => {
                PullError::NoRevision {
                    repository: repository.id.clone(),
                    revision: repository.revision.clone(),
                }
            }
            Failure::Status { code: 404, .. } => {
                PullError::NoRepository { endpoint: self.endpoint.clone(), repository: repository.id.clone() }
            }
            other => self.error(other, asked, repository, "the list of files"),
        })?;
        match answer["sha"].as_str() {
            // It becomes a part of paths.
            Some(sha) if !sha.is_empty() && sha.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                Ok((sha.to_owned(), answer["siblings"].take()))
            }
            _ => Err(self.protocol("its answer about the model names no commit")),
        }
    }

    /// Asks until there is an answer, or a failure that asking again does not repair. Gives how often it asked.
    fn patiently<T>(
        &self,
        tell: &mut dyn FnMut(PullEvent),
        mut ask: impl FnMut(&mut dyn FnMut(PullEvent)) -> Result<T, Failure>,
    ) -> Result<T, (Failure, u32)> {
        let mut asked = 0;
        loop {
            let failure = match ask(tell) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            asked += 1;
            let Some(named) = failure.passes() else { return Err((failure, asked)) };
            let pause = named.unwrap_or(PAUSE * 2u32.pow(asked - 1));
            if asked == ATTEMPTS || pause > PAUSE_MAX {
                return Err((failure, asked));
            }
            tell(PullEvent::Waiting { reason: failure.to_string(), pause });
            (self.pause)(pause);
        }
    }

    /// What a failure is for the user.
    fn error(&self, failure: Failure, asked: u32, repository: &Repository, file: &str) -> PullError {
        let endpoint = self.endpoint.clone();
        let (id, file) = (repository.id.clone(), file.to_owned());
        match failure {
            Failure::Status { code: status @ (401 | 403), .. } => {
                PullError::Refused { repository: id, status, token: self.token.is_some() }
            }
            Failure::Status { code: 404, .. } => PullError::NoFile { repository: id, file },
            Failure::Status { code: status @ (429 | 500..), retry_after, .. } => {
                let wait = retry_after.map(|wait| format!("; it asks to wait {} s", wait.as_secs()));
                PullError::Busy { endpoint, status, asked, wait: wait.unwrap_or_default() }
            }
            Failure::Status { code, .. } => self.protocol(format!("status {code} for {file}")),
            Failure::Unreachable(reason) => PullError::Unreachable { endpoint, reason },
            Failure::Cut(reason) => PullError::Cut { file, reason },
            Failure::BadPart => self.protocol(format!("it does not continue {file} where it was cut")),
            Failure::Locked => PullError::Locked { file },
            Failure::Cache(source) => PullError::Cache { path: self.cache.clone(), source },
            Failure::Protocol(reason) => self.protocol(reason),
        }
    }

    fn protocol(&self, reason: impl Into<String>) -> PullError {
        PullError::Protocol { endpoint: self.endpoint.clone(), reason: reason.into() }
    }

    /// What the cache has of a revision, if that is a whole model.
    fn cached(&self, repository: &Repository) -> Result<Pulled, PullError> {
        let reference = self.folder(repository).join("refs").join(&repository.revision);
        // A commit needs no reference to it.
        let commit = fs::read_to_string(reference).map(|commit| commit.trim().to_owned());
        let commit = commit.unwrap_or_else(|_| repository.revision.clone());
        let folder = self.snapshot(repository, &commit);
        let offline = |file: &str| PullError::Offline {
            repository: repository.id.clone(),
            file: file.to_owned(),
            cache: self.cache.clone(),
        };
        if !folder.is_dir() {
            return Err(offline(&format!("revision {}", repository.revision)));
        }
        for file in ["config.json", WEIGHTS_FILE, TOKENIZER_FILE] {
            let instead = if file == TOKENIZER_FILE { "vocab.txt" } else { file };
            if !folder.join(file).is_file() && !folder.join(instead).is_file() {
                return Err(offline(file));
            }
        }
        let weights = Listed { path: WEIGHTS_FILE.to_owned(), sha256: None, bytes: None };
        check(&folder.join(WEIGHTS_FILE), &weights, repository)?;
        Ok(Pulled { repository: repository.clone(), commit, folder })
    }

    fn folder(&self, repository: &Repository) -> PathBuf {
        self.cache.join(repo(repository, &repository.revision).folder_name())
    }

    fn snapshot(&self, repository: &Repository, commit: &str) -> PathBuf {
        self.folder(repository).join("snapshots").join(commit)
    }
}

/// The files of one commit.
struct Fetch<'a> {
    hub: &'a Hub,
    repository: &'a Repository,
    api: ApiRepo,
    /// Where the cache shows them.
    folder: PathBuf,
}

impl Fetch<'_> {
    /// Makes sure that a file is in the cache and right.
    fn file(&self, file: &Listed, tell: &mut dyn FnMut(PullEvent)) -> Result<(), PullError> {
        let path = self.folder.join(&file.path);
        // One that was damaged since is fetched again.
        if path.is_file() && check(&path, file, self.repository).is_ok() {
            return Ok(());
        }
        let fetched = self.hub.patiently(tell, |tell| {
            let watch = Watch { file: &file.path, done: 0, total: 0, tell };
            let fetched = self.api.download_with_progress(&file.path, watch);
            let fetched = fetched.map_err(|error| match Failure::of(error) {
                // The hub was there a moment ago, so this may pass.
                Failure::Unreachable(reason) => Failure::Cut(reason),
                other => other,
            });
            if matches!(fetched, Err(Failure::BadPart)) {
                self.remove_parts().map_err(Failure::Cache)?;
            }
            fetched
        });
        let fetched = fetched
            .map_err(|(failure, asked)| self.hub.error(failure, asked, self.repository, &file.path))?;
        if fetched != path {
            return Err(self
                .hub
                .protocol(format!("{} is of another commit than it was listed for", file.path)));
        }
        check(&path, file, self.repository)
    }

    /// hf-hub does not tell which one it stumbled over; others cost a download at most.
    fn remove_parts(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.hub.folder(self.repository).join("blobs"))? {
            let path = entry?.path();
            if path.extension() == Some(OsStr::new("part")) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// Compares a file of the cache with what the hub said of it, in the list and in the header that named its blob. One that
/// is wrong is deleted.
fn check(path: &Path, listed: &Listed, repository: &Repository) -> Result<(), PullError> {
    let cache = |source| PullError::Cache { path: path.to_owned(), source };
    let blob = fs::canonicalize(path).map_err(cache)?;
    let is_sum = |name: &str| name.len() == SHA256_DIGITS && name.bytes().all(|b| b.is_ascii_hexdigit());
    // Files that git keeps have git's sum as their etag, of another kind.
    let etag = blob.file_name().and_then(OsStr::to_str).filter(|name| is_sum(name));
    let bytes = fs::metadata(&blob).map_err(cache)?.len();
    let mut reason = None;
    if listed.bytes.is_some_and(|expected| expected != bytes) {
        reason = listed.bytes.map(|expected| format!("{bytes} bytes, expected {expected}"));
    } else if etag.is_some() || listed.sha256.is_some() {
        let got = FileSum::of_file(&blob).map_err(cache)?.sha256;
        let other = [etag, listed.sha256.as_deref()].into_iter().flatten().find(|expected| *expected != got);
        reason = other.map(|expected| format!("sha256 {got}, expected {expected}"));
    }
    let Some(reason) = reason else { return Ok(()) };
    fs::remove_file(path).map_err(cache)?;
    if blob.exists() {
        fs::remove_file(&blob).map_err(cache)?;
    }
    Err(PullError::Wrong { repository: repository.id.clone(), file: listed.path.clone(), reason })
}

fn repo(repository: &Repository, revision: &str) -> Repo {
    Repo::with_revision(repository.id.clone(), RepoType::Model, revision.to_owned())
}

/// hf-hub's progress as events.
struct Watch<'a> {
    file: &'a str,
    done: u64,
    total: u64,
    tell: &'a mut dyn FnMut(PullEvent),
}

impl Progress for Watch<'_> {
    fn init(&mut self, size: usize, _file: &str) {
        (self.done, self.total) = (0, size as u64);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        let Watch { file, done, total, .. } = *self;
        (self.tell)(PullEvent::Downloading { file: file.to_owned(), done, total });
    }

    fn finish(&mut self) {}
}

#[cfg(test)]
mod tests;
