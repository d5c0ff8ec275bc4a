//! A child process of pip downloads a package's wheel into a folder.
//!
//! pip's own settings apply (mirrors, proxies, certificates, credentials): nothing here overrides them but what is
//! asked for. The wheel of the pinned Python and platform is asked for by name, so any Python with pip will do.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    error::{SetupError, io_error},
    pins::{Package, Wheel},
    place, wheel,
};

/// Last lines that an error repeats, of stdout and of stderr: what went wrong is on the latter.
const LINES_KEPT: [usize; 2] = [4, 12];
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Downloads the wheel into `cache`; `progress` gets the bytes that can be seen so far.
pub(super) fn download(
    python: Option<&Path>,
    package: &Package,
    pin: &Wheel,
    cache: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<PathBuf, SetupError> {
    // pip writes into its temporary folder while it downloads: one of our own shows how far it is.
    let scratch = cache.join("pip");
    place::remove_folder(&scratch)?;
    std::fs::create_dir_all(&scratch).map_err(|e| io_error("create", &scratch, e))?;
    let (mut child, python) = start(python, &arguments(package, pin, cache), &scratch)?;
    let kept = [Lines::default(), Lines::default()];
    let readers = [
        child.stdout.take().map(|out| keep_lines(out, &kept[0], LINES_KEPT[0])),
        child.stderr.take().map(|err| keep_lines(err, &kept[1], LINES_KEPT[1])),
    ];
    let status = wait(&mut child, || progress(place::folder_bytes(&scratch).min(pin.bytes)))
        .map_err(|e| io_error("wait for", Path::new(&python), e))?;
    for reader in readers.into_iter().flatten() {
        // A reader that panicked has only lost lines of a message.
        let _ = reader.join();
    }
    place::remove_folder(&scratch)?;
    let taken = |lines: &Lines| std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner));
    let lines: Vec<String> = kept.iter().flat_map(taken).collect();
    if !status.success() {
        if lines.iter().any(|line| line.contains("No module named pip")) {
            return Err(SetupError::PipMissing { python });
        }
        let package = format!("{} {}", package.name, package.version);
        return Err(SetupError::PipFailed { package, status: status.to_string(), lines });
    }
    wheel::find(cache, pin).ok_or_else(|| SetupError::PipLeftNothing {
        package: package.name.clone(),
        folder: cache.to_owned(),
        expected: pin.filename.clone(),
    })
}

fn arguments(package: &Package, pin: &Wheel, cache: &Path) -> Vec<std::ffi::OsString> {
    let fixed = ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"];
    let mut arguments: Vec<std::ffi::OsString> = fixed.map(Into::into).into();
    arguments.extend(["--disable-pip-version-check", "--progress-bar", "off", "-d"].map(Into::into));
    arguments.push(cache.into());
    // "311", not "3.11": the form that the oldest pips take too.
    arguments.extend(["--python-version".into(), pin.python.replace('.', "").into()]);
    if let Some(platform) = &pin.pip_platform {
        arguments.extend(["--platform".into(), platform.into()]);
    }
    arguments.push(format!("{}=={}", package.name, package.version).into());
    arguments
}

/// Starts the asked-for Python, else the first of the usual names that exists.
fn start(
    python: Option<&Path>,
    arguments: &[std::ffi::OsString],
    scratch: &Path,
) -> Result<(Child, String), SetupError> {
    let names = match python {
        Some(one) => vec![one.to_owned()],
        None => vec![PathBuf::from("python3"), PathBuf::from("python")],
    };
    let mut failure = None;
    for name in &names {
        let started = Command::new(name)
            .args(arguments)
            .env("TMPDIR", scratch)
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        match started {
            Ok(child) => return Ok((child, name.display().to_string())),
            Err(e) => failure = failure.or(Some((name.display().to_string(), e.to_string()))),
        }
    }
    let (python, reason) = failure.expect("there is at least one name, and each either started or failed");
    Err(SetupError::PythonMissing { python, reason })
}

fn wait(child: &mut Child, mut look: impl FnMut()) -> std::io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        look();
        std::thread::sleep(LOOK_EVERY);
    }
}

type Lines = Arc<Mutex<VecDeque<String>>>;

fn keep_lines(from: impl Read + Send + 'static, lines: &Lines, max: usize) -> std::thread::JoinHandle<()> {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if line.is_empty() {
                continue;
            }
            let mut kept = lines.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push_back(line);
            if kept.len() > max {
                kept.pop_front();
            }
        }
    })
}
