//! Setup installs pinned packages into a home folder with everything that serving needs: ONNX Runtime, Intel's
//! provider, a model.
//!
//! `models/default.toml` ([`Pins`]) lists the packages, and the size and SHA-256 of every file used.
//! Promises: nothing whose sum differs is installed; a folder appears whole or not at all; what is there already is
//! neither downloaded nor written again; an interrupted run continues where it was; two runs do not meet.
//! Leaves out: any network code. Packages come through pip, so its mirrors, proxies and credentials apply, or from a
//! folder of wheels.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Serialize;

pub use self::{
    error::SetupError,
    pins::{Pins, Role},
    survey::Survey,
};
use self::{
    error::io_error,
    pins::{Package, Wheel},
};
use crate::{
    files::regular,
    hub::ImportOptions,
    model::{ModelDir, ModelError},
};

mod error;
pub mod machine;
mod pins;
mod pip;
mod place;
pub mod survey;
#[cfg(test)]
mod tests;
mod wheel;

/// The time that a run waits for another one to finish.
pub const LOCK_WAIT: Duration = Duration::from_secs(600);

/// Options of a setup: what is installed, and from where.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder that receives `runtime/` and `models/`.
    pub home: PathBuf,
    /// A folder of wheels. Default: none, so pip downloads them.
    pub from: Option<PathBuf>,
    /// Installs again what is there. Default: no.
    pub force: bool,
    /// Compares checksums, not only sizes, of what is there. Default: no.
    pub verify: bool,
    /// Leaves Intel's provider out. Default: no.
    pub no_openvino: bool,
    /// Sets up only this part. Default: all parts.
    pub only: Option<Role>,
    /// The Python whose pip downloads. Default: `python3`, else `python`.
    pub python: Option<PathBuf>,
    /// Time to wait for another run. Default [`LOCK_WAIT`].
    pub lock_wait: Duration,
}

impl Options {
    /// Everything, downloaded, into `home`.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Options {
            home: home.into(),
            from: None,
            force: false,
            verify: false,
            no_openvino: false,
            only: None,
            python: None,
            lock_wait: LOCK_WAIT,
        }
    }
}

/// Progress of a setup. `done` passes `total` by at most the last block.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Another run holds the lock.
    Waiting {
        /// The process that holds it.
        holder: &'a str,
    },
    /// pip downloads a package.
    Downloading {
        /// Name of the package.
        package: &'a str,
        /// Bytes that it has fetched so far, as far as that can be seen.
        done: u64,
        /// Size of the wheel in bytes.
        total: u64,
    },
    /// Files are unpacked and their checksums compared.
    Unpacking {
        /// Name of the package.
        package: &'a str,
        /// Bytes unpacked so far.
        done: u64,
        /// Bytes of all files used.
        total: u64,
    },
    /// Installed files are read again and their checksums compared.
    Checking {
        /// Name of the package.
        package: &'a str,
        /// Bytes read so far.
        done: u64,
        /// Bytes of all files used.
        total: u64,
    },
    /// The model's ONNX file is written from its weights.
    Graph {
        /// Name of the package.
        package: &'a str,
    },
    /// The package is done.
    Done(&'a Item),
}

/// What a run did with a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It was installed already; nothing was done.
    Present,
    /// It was fetched and installed.
    Installed,
    /// It was not asked for, or does not exist for this machine.
    Skipped,
    /// It is optional and could not be installed; `note` says why.
    Failed,
}

/// One package in the [`Report`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Name of the package.
    pub package: String,
    /// Its pinned version.
    pub version: String,
    /// What it is for.
    pub role: Role,
    /// Its licence.
    pub licence: String,
    /// What this run did with it.
    pub status: Status,
    /// Its folder under the home folder.
    pub path: PathBuf,
    /// Size on disk in bytes, generated files included.
    pub bytes: u64,
    /// Bytes that this run downloaded.
    pub downloaded_bytes: u64,
    /// Why an optional package failed; `None` otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Item {
    fn weighed(mut self) -> Self {
        self.bytes = place::folder_bytes(&self.path);
        self
    }
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The home folder.
    pub home: PathBuf,
    /// Every package, in the order of the pins.
    pub items: Vec<Item>,
    /// Size on disk in bytes of everything that is installed now.
    pub bytes: u64,
    /// Bytes that this run downloaded.
    pub downloaded_bytes: u64,
    /// Duration of the run in seconds.
    pub seconds: f64,
}

/// Brings `options.home` to the state that `pins` describes, and reports progress to `watch`.
///
/// # Errors
/// [`SetupError`]; whatever was installed before the failure stays, the failed package leaves nothing behind.
pub fn install(
    pins: &Pins,
    options: &Options,
    watch: &mut dyn FnMut(Event<'_>),
) -> Result<Report, SetupError> {
    let started = Instant::now();
    let mut run = Run { options, watch };
    let mut items = Vec::new();
    let mut todo = Vec::new();
    // Looking needs no lock and no write access: a second run works in a read-only home.
    for package in &pins.packages {
        match run.look(package)? {
            Some(item) => {
                (run.watch)(Event::Done(&item));
                items.push(item);
            }
            None => todo.push(package),
        }
    }
    if !todo.is_empty() {
        let home = place::writable_folder(&options.home)?;
        let _lock = run.lock(&home)?;
        place::sweep(&home)?;
        run.expect_wheels(&todo)?;
        for package in todo {
            let item = run.bring(package)?;
            (run.watch)(Event::Done(&item));
            items.push(item);
        }
        place::remove_folder(&run.cache())?;
    }
    items.sort_by_key(|item| pins.packages.iter().position(|p| p.name == item.package));
    Ok(Report {
        home: options.home.clone(),
        bytes: items.iter().map(|item| item.bytes).sum(),
        downloaded_bytes: items.iter().map(|item| item.downloaded_bytes).sum(),
        items,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// The state of a package's folder.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Whole,
    Nothing,
    /// Files missing or of other sizes or sums.
    Broken,
}

struct Run<'a> {
    options: &'a Options,
    watch: &'a mut dyn FnMut(Event<'_>),
}

impl Run<'_> {
    /// The package's item if nothing has to be done for it.
    fn look(&mut self, package: &Package) -> Result<Option<Item>, SetupError> {
        let item = |status, note: Option<&str>| Item {
            package: package.name.clone(),
            version: package.version.clone(),
            role: package.role,
            licence: package.licence.clone(),
            status,
            path: self.options.home.join(&package.folder),
            bytes: 0,
            downloaded_bytes: 0,
            note: note.map(str::to_owned),
        };
        if self.options.only.is_some_and(|only| only != package.role) {
            return Ok(Some(item(Status::Skipped, Some("not asked for"))));
        }
        if self.options.no_openvino && package.role == Role::Openvino {
            return Ok(Some(item(Status::Skipped, Some("left out by --no-openvino"))));
        }
        let platform = pins::this_platform();
        let Some(wheel) = package.wheel_for(&platform) else {
            if package.required || self.options.only.is_some() {
                return Err(SetupError::Platform {
                    package: package.name.clone(),
                    platform,
                    known: package.platforms(),
                });
            }
            return Ok(Some(item(Status::Skipped, Some("does not exist for this machine"))));
        };
        if self.options.force {
            return Ok(None);
        }
        match self.found(package, wheel)? {
            Found::Whole => Ok(Some(item(Status::Present, None).weighed())),
            Found::Nothing | Found::Broken => Ok(None),
        }
    }

    fn found(&mut self, package: &Package, wheel: &Wheel) -> Result<Found, SetupError> {
        let folder = self.options.home.join(&package.folder);
        let Self { options, watch, .. } = self;
        match package.role {
            Role::Model => found_model(&folder, wheel, options.verify),
            Role::Runtime | Role::Openvino => {
                if !folder.is_dir() {
                    return Ok(Found::Nothing);
                }
                let total = wheel.unpacked_bytes();
                let whole = place::matches(&folder, wheel, options.verify, &mut |done| {
                    watch(Event::Checking { package: &package.name, done, total });
                })?;
                Ok(if whole { Found::Whole } else { Found::Broken })
            }
        }
    }

    /// Holds the home's lock until dropped.
    fn lock(&mut self, home: &Path) -> Result<File, SetupError> {
        let path = home.join(".setup.lock");
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = regular::open_with(&path, &options).map_err(|e| io_error("open", &path, e))?;
        let until = Instant::now() + self.options.lock_wait;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(std::fs::TryLockError::Error(e)) => return Err(io_error("lock", &path, e)),
                Err(std::fs::TryLockError::WouldBlock) => {
                    let holder = regular::read_text(&path).unwrap_or_default();
                    let holder = if holder.is_empty() {
                        "another process".to_owned()
                    } else {
                        holder.trim().to_owned()
                    };
                    if Instant::now() >= until {
                        return Err(SetupError::Busy { home: home.to_owned(), holder });
                    }
                    if !std::mem::replace(&mut told, true) {
                        (self.watch)(Event::Waiting { holder: &holder });
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
        // Only for the message above; the lock itself is the kernel's and ends with the process.
        let note = file.set_len(0).and_then(|()| writeln!(file, "process {}", std::process::id()));
        note.map_err(|e| io_error("write", &path, e))?;
        Ok(file)
    }

    /// With `--from`: every required wheel must be there before anything is written.
    fn expect_wheels(&self, todo: &[&Package]) -> Result<(), SetupError> {
        let Some(from) = &self.options.from else { return Ok(()) };
        let platform = pins::this_platform();
        let missing: Vec<String> = todo
            .iter()
            .filter(|p| p.required || self.options.only.is_some())
            .filter_map(|p| p.wheel_for(&platform))
            .filter(|w| wheel::find(from, w).is_none())
            .map(|w| w.filename.clone())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(SetupError::WheelMissing { folder: from.clone(), missing })
    }

    /// Fetches and installs a package; an optional one that fails becomes a note.
    fn bring(&mut self, package: &Package) -> Result<Item, SetupError> {
        let platform = pins::this_platform();
        let wheel =
            package.wheel_for(&platform).expect("`look` skips packages without a wheel for this machine");
        let mut item = Item {
            package: package.name.clone(),
            version: package.version.clone(),
            role: package.role,
            licence: package.licence.clone(),
            status: Status::Installed,
            path: self.options.home.join(&package.folder),
            bytes: 0,
            downloaded_bytes: 0,
            note: None,
        };
        // Another run may have done it while we waited for the lock.
        if !self.options.force && self.found(package, wheel)? == Found::Whole {
            item.status = Status::Present;
            return Ok(item.weighed());
        }
        match self.fetch_and_place(package, wheel) {
            Ok(downloaded) => {
                item.downloaded_bytes = downloaded;
                item = item.weighed();
            }
            Err(e) if !package.required && self.options.only.is_none() => {
                item.status = Status::Failed;
                item.note = Some(crate::error::with_sources(&e));
            }
            Err(e) => return Err(e),
        }
        Ok(item)
    }

    fn fetch_and_place(&mut self, package: &Package, pin: &Wheel) -> Result<u64, SetupError> {
        let Some(from) = &self.options.from else {
            return self.download_and_place(package, pin);
        };
        let path = wheel::find(from, pin).ok_or_else(|| SetupError::WheelMissing {
            folder: from.clone(),
            missing: vec![pin.filename.clone()],
        })?;
        self.place(package, pin, &path)?;
        Ok(0)
    }

    /// From the cache if an interrupted run left the wheel there, else through pip; a bad cached wheel goes first.
    fn download_and_place(&mut self, package: &Package, pin: &Wheel) -> Result<u64, SetupError> {
        let cache = self.cache();
        if let Some(cached) = wheel::find(&cache, pin) {
            match self.place(package, pin, &cached) {
                Ok(()) => return place::remove_file(&cached).map(|()| 0),
                Err(e) if e.is_about_the_wheel() => place::remove_file(&cached)?,
                Err(e) => return Err(e),
            }
        }
        std::fs::create_dir_all(&cache).map_err(|e| io_error("create", &cache, e))?;
        let Self { options, watch, .. } = self;
        let path = pip::download(options.python.as_deref(), package, pin, &cache, &mut |done| {
            watch(Event::Downloading { package: &package.name, done, total: pin.bytes });
        })?;
        let downloaded = std::fs::metadata(&path).map_err(|e| io_error("read", &path, e))?.len();
        let placed = self.place(package, pin, &path);
        // Installed, it is of no more use; wrong, it must not be taken again.
        if placed.as_ref().map_or_else(SetupError::is_about_the_wheel, |()| true) {
            place::remove_file(&path)?;
        }
        placed.map(|()| downloaded)
    }

    /// Unpacks into a temporary folder beside the final one, then moves it there.
    fn place(&mut self, package: &Package, pin: &Wheel, path: &Path) -> Result<(), SetupError> {
        let home = &self.options.home;
        let target = home.join(&package.folder);
        let temporary = place::temporary_beside(&target)?;
        let total = pin.unpacked_bytes();
        let watch = &mut self.watch;
        let unpacked = wheel::unpack(path, &pin.files, &temporary, &mut |done| {
            watch(Event::Unpacking { package: &package.name, done, total });
        });
        let done = unpacked.and_then(|()| match (package.role, &package.import) {
            (Role::Model, Some(import)) => {
                watch(Event::Graph { package: &package.name });
                import_model(home, &target, &temporary, import, pin, self.options.force)
            }
            _ => place::swap_in(&temporary, &target),
        });
        let removed = place::remove_folder(&temporary);
        done.and(removed)
    }

    fn cache(&self) -> PathBuf {
        self.options.home.join(place::CACHE)
    }
}

/// Is the default model there? Its ONNX file is written at once if only that is missing.
fn found_model(folder: &Path, wheel: &Wheel, verify: bool) -> Result<Found, SetupError> {
    if !folder.exists() {
        return Ok(Found::Nothing);
    }
    let Ok(dir) = ModelDir::open(folder) else { return Ok(Found::Broken) };
    if !is_pinned_model(&dir, wheel) {
        return Err(SetupError::OtherModel { path: folder.to_owned() });
    }
    if verify {
        match dir.verify() {
            Ok(()) => {}
            Err(ModelError::Io { path, source }) => return Err(io_error("read", &path, source)),
            Err(_) => return Ok(Found::Broken),
        }
    }
    match dir.onnx_path() {
        Ok(_) => Ok(Found::Whole),
        Err(ModelError::Io { path, source }) => Err(io_error("write", &path, source)),
        Err(_) => Ok(Found::Broken),
    }
}

/// Weights with the pinned sum; tokenizers may be rewritten by the import.
fn is_pinned_model(dir: &ModelDir, wheel: &Wheel) -> bool {
    let weights = crate::model::WEIGHTS_FILE;
    let pinned = wheel.files.iter().find(|f| f.target == Path::new(weights));
    let have = dir.manifest.files.get(weights);
    pinned.zip(have).is_some_and(|(pin, have)| pin.accepts(&have.sha256))
}

fn import_model(
    home: &Path,
    target: &Path,
    from: &Path,
    import: &pins::Import,
    wheel: &Wheel,
    force: bool,
) -> Result<(), SetupError> {
    // A broken copy of ours may be replaced without asking; somebody else's model may not.
    let replace = match ModelDir::open(target) {
        Ok(there) => force || is_pinned_model(&there, wheel),
        Err(_) => true,
    };
    if !replace {
        return Err(SetupError::OtherModel { path: target.to_owned() });
    }
    let options = ImportOptions {
        name: Some(import.name.clone()),
        pooling: Some(import.pooling),
        normalise: Some(import.normalise),
        max_tokens: Some(import.max_tokens),
        licence: Some(import.licence.clone()),
        source: Some(import.source.clone()),
        force: true,
        ..ImportOptions::default()
    };
    // The first start should not wait for the graph to be written.
    let written = ModelDir::import(home, from, options).and_then(|dir| dir.onnx_path());
    written.map(drop).map_err(|e| match e {
        ModelError::Io { path, source } => io_error("write", &path, source),
        e => e.into(),
    })
}
