//! Finds and loads the ONNX Runtime library, once per process, checking it before `ort` can panic over it.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use ort::{environment::Environment, logging::LogLevel};

use super::{RuntimeError, RuntimeReport, provider};

/// Version of the wheel that setup installs; also the name of its folder.
pub(super) const LIBRARY_VERSION: &str = "1.31.1";

/// The process's one environment and what was registered with it.
pub(super) struct Loaded {
    pub(super) environment: Environment,
    pub(super) library: PathBuf,
    /// Where that leads: the name it was loaded by may be gone by now.
    file: PathBuf,
    pub(super) openvino: Option<Result<(), String>>,
}

static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// Where the library is expected: `ORT_DYLIB_PATH` if set, else in `home`, a GPU build first.
pub(super) fn library_path(home: &Path) -> PathBuf {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|p| !p.is_empty()) {
        return PathBuf::from(path);
    }
    let name = if cfg!(target_os = "macos") {
        format!("libonnxruntime.{LIBRARY_VERSION}.dylib")
    } else {
        format!("libonnxruntime.so.{LIBRARY_VERSION}")
    };
    let gpu = home.join(format!("runtime/onnxruntime-gpu-{LIBRARY_VERSION}")).join(&name);
    if gpu.exists() {
        return gpu;
    }
    home.join(format!("runtime/onnxruntime-{LIBRARY_VERSION}")).join(name)
}

/// Runs `f` with the loaded runtime, loading it first if need be. Sessions are created under this lock.
pub(super) fn with_runtime<T>(
    home: &Path,
    f: impl FnOnce(&mut Loaded) -> Result<T, RuntimeError>,
) -> Result<T, RuntimeError> {
    // A panic under the lock left at worst an environment without a provider: it can be used on.
    let mut guard = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let path = library_path(home);
    if let Some(loaded) = guard.as_mut() {
        let same = loaded.library == path || path.canonicalize().is_ok_and(|path| path == loaded.file);
        if !same {
            return Err(RuntimeError::OtherLibrary { loaded: loaded.library.clone(), asked: path });
        }
        return f(loaded);
    }
    check_file(&path)?;
    let unusable = |reason: String| RuntimeError::LibraryUnusable { path: path.clone(), reason };
    let builder = ort::init_from(&path).map_err(|e| unusable(e.to_string()))?;
    let environment = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        builder.with_name("distilface").with_telemetry(false).with_logger(Arc::new(log)).build()
    }))
    .map_err(|_| unusable("it does not offer the programming interface that was asked for".to_owned()))?
    .map_err(|e| unusable(e.to_string()))?;
    environment.set_log_level(LogLevel::Warning);
    let file = path.canonicalize().unwrap_or_else(|_| path.clone());
    f(guard.insert(Loaded { environment, library: path, file, openvino: None }))
}

fn log(level: LogLevel, category: &str, _id: &str, location: &str, message: &str) {
    match level {
        // The caller cancelled it, so nothing is wrong.
        LogLevel::Error if is_cancelled(message) => {
            tracing::debug!(category, location, text = message, "onnxruntime");
        }
        LogLevel::Fatal | LogLevel::Error => {
            tracing::warn!(category, location, text = message, "onnxruntime")
        }
        _ => tracing::debug!(category, location, text = message, "onnxruntime"),
    }
}

/// The library's message for a run that was stopped.
fn is_cancelled(message: &str) -> bool {
    message.contains("terminate flag")
}

/// A shared library that was cut short makes the loader die of SIGBUS, which nothing can catch:
/// an ELF file must be as long as its header says.
pub(super) fn check_file(path: &Path) -> Result<(), RuntimeError> {
    let unusable =
        |reason: &str| RuntimeError::LibraryUnusable { path: path.to_owned(), reason: reason.to_owned() };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(RuntimeError::LibraryMissing { path: path.to_owned() });
        }
        Err(e) => return Err(unusable(&e.to_string())),
    };
    if !cfg!(all(target_os = "linux", target_pointer_width = "64")) {
        return Ok(());
    }
    let mut header = [0u8; 64];
    if file.read_exact(&mut header).is_err() || &header[..4] != b"\x7fELF" {
        return Err(unusable("it is not a shared library"));
    }
    let u64_at = |at: usize| header[at..at + 8].iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
    let u16_at = |at: usize| u64::from(header[at]) | u64::from(header[at + 1]) << 8;
    // e_shoff + e_shentsize * e_shnum: the section headers come last in what linkers write.
    let needed = u64_at(0x28).saturating_add(u16_at(0x3a) * u16_at(0x3c));
    let length = file.metadata().map_or(0, |m| m.len());
    if length < needed {
        return Err(unusable(&format!("it was cut short: {length} bytes, {needed} expected")));
    }
    Ok(())
}

/// Looks at what is installed under `home`, loading libraries but no model.
pub fn inspect(home: &Path) -> RuntimeReport {
    let mut report = RuntimeReport {
        library: Err(String::new()),
        version: None,
        openvino: Err("needs ONNX Runtime first".to_owned()),
        cuda: Err("needs ONNX Runtime first".to_owned()),
    };
    let result = with_runtime(home, |loaded| {
        report.version = Some(version(&loaded.library));
        report.openvino = provider::register_openvino(loaded, home).map(|()| provider::openvino_path(home));
        report.cuda = provider::cuda_available(loaded).map(|()| "the CUDA provider loads".to_owned());
        Ok(loaded.library.clone())
    });
    report.library = result.map_err(|e| e.to_string());
    report
}

/// The version in the library's file name (`libonnxruntime.so.1.31.1`), through links; else its build description,
/// which names a commit and no version.
fn version(library: &Path) -> String {
    let file = library.canonicalize().unwrap_or_else(|_| library.to_owned());
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let version = name
        .split_once(".so.")
        .map(|(_, v)| v)
        .or_else(|| name.strip_prefix("libonnxruntime.").and_then(|rest| rest.strip_suffix(".dylib")));
    version.map_or_else(|| ort::info().to_owned(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_in_the_name() {
        assert_eq!(version(Path::new("/x/libonnxruntime.so.1.31.1")), "1.31.1");
        assert_eq!(version(Path::new("/x/libonnxruntime.1.31.1.dylib")), "1.31.1");
    }

    #[test]
    fn a_missing_library_says_how_to_get_it() {
        let error = check_file(Path::new("/nonexistent/libonnxruntime.so")).unwrap_err();
        assert!(matches!(error, RuntimeError::LibraryMissing { .. }));
        assert!(error.to_string().contains("distilface setup"), "{error}");
    }

    #[test]
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    fn a_truncated_or_foreign_library_is_refused_before_the_loader_sees_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib.so");
        std::fs::write(
            &path,
            "not a library, but long enough to hold a header: ...............................",
        )
        .unwrap();
        assert!(check_file(&path).unwrap_err().to_string().contains("not a shared library"));

        // The test program is an ELF file too: whole it passes, cut it does not.
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        std::fs::write(&path, &program).unwrap();
        check_file(&path).unwrap();
        std::fs::write(&path, &program[..program.len() / 2]).unwrap();
        assert!(check_file(&path).unwrap_err().to_string().contains("cut short"));
    }
}
