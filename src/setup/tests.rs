//! Setup on small wheels made here, with a shell script in the place of Python.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    sync::atomic::{AtomicU32, Ordering},
};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::error::{ErrorKind, Fault as _};

const LIBRARY: &[u8] = b"not really a library";
const PROVIDER: &[u8] = b"not really a provider";

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn wheel_name(package: &str) -> String {
    format!("{package}-1.0-cp311-cp311-test.whl")
}

fn write_wheel(path: &Path, files: &[(&str, &[u8])]) {
    let mut zip = zip::ZipWriter::new(File::create(path).unwrap());
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    for (name, bytes) in files {
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

/// A required library and an optional provider, both for any machine.
fn pins() -> Pins {
    let package = |name: &str, role: &str, required: bool, bytes: &[u8]| {
        format!(
            "[[package]]\nname = '{name}'\nversion = '1.0'\nrole = '{role}'\nrequired = {required}\n\
             folder = 'runtime/{name}-1.0'\nlicence = 'MIT'\n\
             [[package.wheel]]\nplatform = 'any'\nfilename = '{}'\nbytes = 100\nsha256 = '00'\n\
             [[package.wheel.file]]\npath = '{name}/lib.so'\ntarget = 'lib.so'\nbytes = {}\nsha256 = '{}'\n\
             [[package.wheel.file]]\npath = '{name}/LICENSE'\ntarget = 'doc/LICENSE'\nbytes = 3\nsha256 = '{}'\n",
            wheel_name(name),
            bytes.len(),
            sha256(bytes),
            sha256(b"MIT"),
        )
    };
    let (library, provider) =
        (package("lib", "runtime", true, LIBRARY), package("provider", "openvino", false, PROVIDER));
    Pins::parse(&format!("format = 1\n{library}{provider}")).unwrap()
}

struct World {
    folder: TempDir,
    events: Vec<String>,
}

impl World {
    /// A folder `wheels` with both wheels, an empty `home`, and a `python` that copies wheels where pip would put them.
    fn new() -> Self {
        let world = World { folder: TempDir::new().unwrap(), events: Vec::new() };
        fs::create_dir(world.wheels()).unwrap();
        world.put("lib", LIBRARY);
        world.put("provider", PROVIDER);
        world.python(&format!(
            "while [ $# -gt 0 ]; do case \"$1\" in -d) to=\"$2\";; *==*) what=\"${{1%%==*}}\";; esac; shift; done\n\
             echo \"$what\" >> '{log}'\n\
             exec cp '{wheels}'/\"$what\"-*.whl \"$to\"",
            log = world.path("pip.log").display(),
            wheels = world.wheels().display(),
        ));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn wheels(&self) -> PathBuf {
        self.path("wheels")
    }

    fn home(&self) -> PathBuf {
        self.path("home")
    }

    fn put(&self, package: &str, bytes: &[u8]) {
        let (lib, licence) = (format!("{package}/lib.so"), format!("{package}/LICENSE"));
        let files: [(&str, &[u8]); 3] = [(&lib, bytes), (&licence, b"MIT"), ("unused.py", b"never unpacked")];
        write_wheel(&self.wheels().join(wheel_name(package)), &files);
    }

    fn python(&self, script: &str) {
        let path = self.path("python");
        // Written elsewhere and moved: a script that is open for writing cannot be started.
        let fresh = self.path("python.new");
        fs::write(&fresh, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(fresh, path).unwrap();
    }

    /// Packages that pip was asked for so far.
    fn pip_log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("pip.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    fn options(&self) -> Options {
        Options {
            python: Some(self.path("python")),
            lock_wait: Duration::from_millis(300),
            ..Options::new(self.home())
        }
    }

    fn offline(&self) -> Options {
        // A Python that fails: --from must not need any.
        Options { from: Some(self.wheels()), python: Some("/nonexistent/python".into()), ..self.options() }
    }

    fn run(&mut self, options: &Options) -> Result<Report, SetupError> {
        let events = &mut self.events;
        install(&pins(), options, &mut |event| events.push(format!("{event:?}")))
    }

    /// Everything under the home but the lock.
    fn files(&self) -> Vec<String> {
        let mut files: Vec<String> = walkdir::WalkDir::new(self.home())
            .into_iter()
            .flatten()
            .filter(|e| e.file_type().is_file() && e.file_name() != ".setup.lock")
            .map(|e| e.path().strip_prefix(self.home()).unwrap().display().to_string())
            .collect();
        files.sort();
        files
    }
}

const ALL: [&str; 4] = [
    "runtime/lib-1.0/doc/LICENSE",
    "runtime/lib-1.0/lib.so",
    "runtime/provider-1.0/doc/LICENSE",
    "runtime/provider-1.0/lib.so",
];

fn statuses(report: &Report) -> Vec<Status> {
    report.items.iter().map(|item| item.status).collect()
}

#[test]
fn setup_downloads_once_and_leaves_only_what_is_used() {
    let mut world = World::new();
    let report = world.run(&world.options()).unwrap();
    assert_eq!(statuses(&report), [Status::Installed, Status::Installed]);
    assert_eq!(report.bytes, (LIBRARY.len() + PROVIDER.len() + 6) as u64);
    assert!(report.downloaded_bytes > 0);
    assert_eq!(world.files(), ALL, "no wheel, no temporary file is left");
    assert_eq!(fs::read(world.home().join("runtime/lib-1.0/lib.so")).unwrap(), LIBRARY);

    let report = world.run(&world.options()).unwrap();
    assert_eq!(statuses(&report), [Status::Present, Status::Present]);
    assert_eq!(report.downloaded_bytes, 0);
    assert_eq!(world.pip_log(), ["lib", "provider"], "the second run asks pip for nothing");
}

#[test]
fn pip_is_asked_for_the_pinned_release_and_nothing_else() {
    let mut world = World::new();
    let log = world.path("arguments");
    world.python(&format!("echo \"$@\" >> '{}'; exit 1", log.display()));
    world.run(&world.options()).unwrap_err();
    let arguments = fs::read_to_string(log).unwrap();
    assert!(arguments.starts_with("-m pip download --no-deps --only-binary=:all:"), "{arguments}");
    assert!(arguments.contains("--python-version 311"), "{arguments}");
    assert!(arguments.trim_end().ends_with("lib==1.0"), "{arguments}");
}

#[test]
fn a_folder_of_wheels_needs_no_python() {
    let mut world = World::new();
    let report = world.run(&world.offline()).unwrap();
    assert_eq!(statuses(&report), [Status::Installed, Status::Installed]);
    assert_eq!(report.downloaded_bytes, 0);
    assert_eq!(world.files(), ALL);
    assert!(world.wheels().join(wheel_name("lib")).exists(), "the user's wheels stay");
}

#[test]
fn a_wheel_for_another_python_will_do() {
    let mut world = World::new();
    fs::rename(world.wheels().join(wheel_name("lib")), world.wheels().join("lib-1.0-cp313-cp313-test.whl"))
        .unwrap();
    world.run(&world.offline()).unwrap();
    assert_eq!(world.files(), ALL);
}

#[test]
fn a_missing_wheel_is_named_before_anything_is_written() {
    let mut world = World::new();
    fs::remove_file(world.wheels().join(wheel_name("lib"))).unwrap();
    // Close, but another release and another machine.
    fs::write(world.wheels().join("lib-1.0.1-cp311-cp311-test.whl"), "").unwrap();
    fs::write(world.wheels().join("lib-1.0-cp311-cp311-other.whl"), "").unwrap();
    let error = world.run(&world.offline()).unwrap_err();
    assert!(matches!(&error, SetupError::WheelMissing { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(&wheel_name("lib")), "{error}");
    assert!(error.to_string().contains(&world.wheels().display().to_string()), "{error}");
    assert!(world.files().is_empty());
}

#[test]
fn an_optional_package_that_cannot_be_had_is_a_note() {
    let mut world = World::new();
    fs::remove_file(world.wheels().join(wheel_name("provider"))).unwrap();
    for options in [world.offline(), Options { force: true, ..world.options() }] {
        let report = world.run(&options).unwrap();
        assert_eq!(statuses(&report), [Status::Installed, Status::Failed]);
        assert!(report.items[1].note.as_deref().unwrap().contains("provider"), "{:?}", report.items[1].note);
        assert_eq!(world.files(), ALL[..2]);
    }
    let only = Options { only: Some(Role::Openvino), ..world.offline() };
    assert!(world.run(&only).is_err(), "asked for by name it is not optional");
}

#[test]
fn parts_can_be_left_out() {
    let mut world = World::new();
    let report = world.run(&Options { no_openvino: true, ..world.offline() }).unwrap();
    assert_eq!(statuses(&report), [Status::Installed, Status::Skipped]);
    let report = world.run(&Options { only: Some(Role::Openvino), ..world.offline() }).unwrap();
    assert_eq!(statuses(&report), [Status::Skipped, Status::Installed]);
    assert_eq!(world.files(), ALL);
}

#[test]
fn a_wrong_checksum_names_file_and_sums_and_installs_nothing() {
    let mut world = World::new();
    let other = b"not really a librarY";
    world.put("lib", other);
    for options in [world.offline(), world.options()] {
        let error = world.run(&options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let message = error.to_string();
        for part in ["lib/lib.so", &sha256(LIBRARY), &sha256(other), "nothing of it was installed"] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
        assert!(world.files().is_empty(), "{:?}", world.files());
    }
    // The bad download does not stick.
    world.put("lib", LIBRARY);
    world.run(&world.options()).unwrap();
    assert_eq!(world.files(), ALL);
}

#[test]
fn a_wrong_size_is_told_as_such() {
    let mut world = World::new();
    world.put("lib", b"short");
    let error = world.run(&world.offline()).unwrap_err();
    assert!(error.to_string().contains("expected 20 bytes, got 5"), "{error}");
    assert!(world.files().is_empty());
}

#[test]
fn a_truncated_wheel_is_refused_and_fetched_again() {
    let mut world = World::new();
    let path = world.wheels().join(wheel_name("lib"));
    let whole = fs::read(&path).unwrap();
    for length in [0, 10, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = world.run(&world.offline()).unwrap_err();
        assert!(matches!(&error, SetupError::WheelDamaged { .. }), "{length}: {error:?}");
        assert!(error.to_string().contains("cannot be unpacked"), "{error}");
        assert!(world.files().is_empty());
    }
    // In the cache, where an interrupted run may have left it, it is replaced by a fresh one.
    let cache = world.home().join(place::CACHE);
    fs::create_dir_all(&cache).unwrap();
    fs::write(cache.join(wheel_name("lib")), &whole[..10]).unwrap();
    fs::write(&path, &whole).unwrap();
    world.run(&world.options()).unwrap();
    assert_eq!(world.pip_log(), ["lib", "provider"]);
    assert_eq!(world.files(), ALL);
}

#[test]
fn a_damaged_byte_is_noticed_wherever_it_is() {
    let mut world = World::new();
    let path = world.wheels().join(wheel_name("lib"));
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(&path, &bytes).unwrap();
        // Some bytes do not matter (times, the file that is not used); never may wrong content be installed.
        match world.run(&Options { force: true, only: Some(Role::Runtime), ..world.offline() }) {
            Ok(_) => assert_eq!(fs::read(world.home().join(ALL[1])).unwrap(), LIBRARY, "byte {at}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 50, "only {refused} damages were noticed");
}

#[test]
fn an_interrupted_run_goes_on_where_it_was() {
    let mut world = World::new();
    let home = world.home();
    // Killed after the download of one wheel and in the middle of unpacking.
    fs::create_dir_all(home.join(place::CACHE).join("pip")).unwrap();
    fs::copy(world.wheels().join(wheel_name("lib")), home.join(place::CACHE).join(wheel_name("lib")))
        .unwrap();
    fs::create_dir_all(home.join("runtime/.setup-tmp-lib-1.0")).unwrap();
    fs::write(home.join("runtime/.setup-tmp-lib-1.0/lib.so"), "half").unwrap();
    let report = world.run(&world.options()).unwrap();
    assert_eq!(world.pip_log(), ["provider"], "the wheel that is there is not downloaded again");
    assert_eq!(report.items[0].downloaded_bytes, 0);
    assert_eq!(world.files(), ALL);
}

#[test]
fn damage_is_mended_where_it_is_seen() {
    let mut world = World::new();
    world.run(&world.options()).unwrap();
    let library = world.home().join(ALL[1]);

    fs::write(&library, "cut").unwrap();
    let report = world.run(&world.options()).unwrap();
    assert_eq!(statuses(&report), [Status::Installed, Status::Present], "another size is seen at once");

    fs::write(&library, LIBRARY.to_ascii_uppercase()).unwrap();
    let report = world.run(&world.options()).unwrap();
    assert_eq!(statuses(&report), [Status::Present, Status::Present], "sums are compared only when asked");
    let report = world.run(&Options { verify: true, ..world.options() }).unwrap();
    assert_eq!(statuses(&report), [Status::Installed, Status::Present]);
    assert_eq!(fs::read(&library).unwrap(), LIBRARY);

    let report = world.run(&Options { force: true, ..world.options() }).unwrap();
    assert_eq!(statuses(&report), [Status::Installed, Status::Installed]);
    assert_eq!(world.files(), ALL);
}

#[test]
fn a_failure_keeps_what_was_there() {
    let mut world = World::new();
    world.run(&world.options()).unwrap();
    world.put("lib", b"not really a libraRY");
    world.run(&Options { force: true, ..world.offline() }).unwrap_err();
    assert_eq!(world.files(), ALL);
    assert_eq!(fs::read(world.home().join(ALL[1])).unwrap(), LIBRARY);
}

#[test]
fn a_home_that_cannot_be_written_is_told_with_what_to_do() {
    let mut world = World::new();
    // Root may write anywhere, so a file stands where the folder should.
    let file = world.path("file");
    fs::write(&file, "").unwrap();
    let error = world.run(&Options { home: file.join("home"), ..world.offline() }).unwrap_err();
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    for kind in [std::io::ErrorKind::PermissionDenied, std::io::ErrorKind::ReadOnlyFilesystem] {
        let error = io_error("create", Path::new("/home/x"), kind.into());
        assert!(matches!(error, SetupError::Unwritable { .. }));
        assert!(error.to_string().contains("--home or DISTILFACE_HOME"), "{error}");
    }
}

#[test]
fn a_complete_home_may_be_read_only() {
    let mut world = World::new();
    world.run(&world.options()).unwrap();
    let lock = world.home().join(".setup.lock");
    fs::remove_file(&lock).unwrap();
    world.run(&world.options()).unwrap();
    assert!(!lock.exists(), "a run that finds everything writes nothing");
}

#[test]
fn a_missing_python_or_pip_is_told_with_what_to_install() {
    let mut world = World::new();
    let error =
        world.run(&Options { python: Some("/nonexistent/python3".into()), ..world.options() }).unwrap_err();
    assert!(matches!(error, SetupError::PythonMissing { .. }), "{error:?}");
    assert!(error.to_string().contains("apt install python3 python3-pip"), "{error}");
    world.python("echo \"$0: No module named pip\" >&2; exit 1");
    let error = world.run(&world.options()).unwrap_err();
    assert!(matches!(error, SetupError::PipMissing { .. }), "{error:?}");
    assert!(error.to_string().contains("has no pip") && error.to_string().contains("--from DIR"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Precondition);
}

#[test]
fn a_failing_pip_is_quoted() {
    let mut world = World::new();
    world.python(
        "i=0; while [ $i -lt 50 ]; do echo \"line $i\"; i=$((i+1)); done; echo 'ERROR: no network' >&2; exit 3",
    );
    let error = world.run(&world.options()).unwrap_err().to_string();
    for part in ["lib 1.0", "exit status: 3", "line 49", "ERROR: no network", "run setup again"] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    assert!(!error.contains("line 5\n"), "only the last lines: {error}");
    world.python("exit 0");
    let error = world.run(&world.options()).unwrap_err();
    assert!(matches!(&error, SetupError::PipLeftNothing { .. }), "{error:?}");
}

#[test]
fn a_machine_without_a_wheel_is_told() {
    let mut world = World::new();
    let text = "format = 1\n[[package]]\nname = 'lib'\nversion = '1'\nrole = 'runtime'\nrequired = true\n\
                folder = 'lib'\nlicence = 'MIT'\n[[package.wheel]]\nplatform = 'plan9-mips'\nfilename = 'x'\n\
                bytes = 1\nsha256 = '00'\nfile = []\n";
    let run = |text: &str, world: &World| install(&Pins::parse(text).unwrap(), &world.offline(), &mut |_| ());
    let error = run(text, &world).unwrap_err();
    assert!(
        error.to_string().contains("plan9-mips") && error.to_string().contains("ORT_DYLIB_PATH"),
        "{error}"
    );
    let report = run(&text.replace("required = true", "required = false"), &world).unwrap();
    assert_eq!(statuses(&report), [Status::Skipped]);
    world.events.clear();
}

#[test]
fn two_runs_do_not_meet() {
    let mut world = World::new();
    fs::create_dir(world.home()).unwrap();
    let path = world.home().join(".setup.lock");
    fs::write(&path, "process 4711\n").unwrap();
    let held = File::open(&path).unwrap();
    held.lock().unwrap();
    let error = world.run(&world.offline()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("process 4711"), "{error}");
    assert!(world.events.iter().any(|e| e.contains("Waiting")), "{:?}", world.events);
    assert!(world.files().is_empty());

    // Once it is free, the waiting run does what is left.
    let options = Options { lock_wait: Duration::from_secs(20), ..world.offline() };
    let waits = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        drop(held);
    });
    world.run(&options).unwrap();
    waits.join().unwrap();
    assert_eq!(world.files(), ALL);
}

#[test]
fn runs_at_the_same_time_share_the_work() {
    let world = World::new();
    let options = Options { lock_wait: Duration::from_secs(20), ..world.options() };
    let installed = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let report = install(&pins(), &options, &mut |_| ()).unwrap();
                let fresh = report.items.iter().filter(|i| i.status == Status::Installed).count();
                installed.fetch_add(u32::try_from(fresh).unwrap(), Ordering::Relaxed);
            });
        }
    });
    assert_eq!(installed.into_inner(), 2, "each package once");
    assert_eq!(world.pip_log(), ["lib", "provider"]);
    assert_eq!(world.files(), ALL);
}

#[test]
fn progress_ends_at_the_total() {
    let mut world = World::new();
    world.run(&world.offline()).unwrap();
    let total = LIBRARY.len() + 3;
    let last = format!("Unpacking {{ package: \"lib\", done: {total}, total: {total} }}");
    assert!(world.events.contains(&last), "{:?}", world.events);
}
