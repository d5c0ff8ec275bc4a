//! Runs the binary in an environment of its own: no settings of the user, a data folder that goes away.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value as Json;

/// Longer than anything here takes, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(900);

/// What a finished command left.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    #[track_caller]
    pub fn code(self, expected: i32) -> Ran {
        assert_eq!(self.code, expected, "{self:#?}");
        self
    }

    #[track_caller]
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }

    pub fn json_lines(&self) -> Vec<Json> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The error that `--json` writes as the last line of stderr.
    #[track_caller]
    pub fn json_error(&self) -> Json {
        let line = self.stderr.lines().last().unwrap_or_else(|| panic!("no error: {self:#?}"));
        serde_json::from_str::<Json>(line).unwrap_or_else(|e| panic!("{e}: {self:#?}"))["error"].clone()
    }

    #[track_caller]
    pub fn says(&self, part: &str) -> &Ran {
        assert!(self.stderr.contains(part), "{part:?} is not on stderr: {self:#?}");
        self
    }

    #[track_caller]
    pub fn prints(&self, part: &str) -> &Ran {
        assert!(self.stdout.contains(part), "{part:?} is not on stdout: {self:#?}");
        self
    }
}

/// The binary with an environment that knows nothing of this machine's user.
pub fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distilface"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("DISTILFACE_")
            || name.starts_with("XDG_")
            || name == "NO_COLOR"
            || name == "COLUMNS"
        {
            command.env_remove(name);
        }
    }
    command.env("HOME", "/nonexistent").env("XDG_CONFIG_HOME", "/nonexistent").stdin(Stdio::null());
    command
}

/// Waits for the end; a command that hangs fails the test instead of the whole run.
#[track_caller]
pub fn run(command: &mut Command) -> Ran {
    finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

#[track_caller]
pub fn run_with_stdin(command: &mut Command, input: &[u8]) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = thread::spawn(move || stdin.write_all(&input));
    let ran = finish(child);
    // A command that stops early closes the pipe.
    let _ = writer.join().unwrap();
    ran
}

#[track_caller]
pub fn finish(mut child: Child) -> Ran {
    fn drain(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                stream.read_to_end(&mut bytes).unwrap();
            }
            String::from_utf8(bytes).expect("output is UTF-8")
        })
    }
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it hangs: {:?}", (stdout.join(), stderr.join()));
        }
        thread::sleep(Duration::from_millis(10));
    };
    Ran { code: status.code().unwrap_or(-1), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Asks again and again until it is so.
#[track_caller]
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "waited too long until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Where the runtime's libraries are; `None` (said, and in CI an error) where they are not.
pub fn home() -> Option<PathBuf> {
    let home = std::env::var_os("DISTILFACE_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share/distilface")));
    let found = home.filter(|home| home.join("runtime").is_dir());
    if found.is_none() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "CI needs ONNX Runtime: run `distilface setup`"
        );
        eprintln!("skipped: no ONNX Runtime; run `distilface setup` or set DISTILFACE_HOME");
    }
    found
}

/// `models/tiny`, copied once: opening a model writes files beside it.
fn tiny_model() -> &'static Path {
    static TINY: OnceLock<tempfile::TempDir> = OnceLock::new();
    TINY.get_or_init(|| {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(&from).unwrap_or_else(|e| panic!("{}: {e}", from.display())) {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
            }
        }
        folder
    })
    .path()
}

/// A data folder with the tiny model, and files beside it.
pub struct Place {
    folder: tempfile::TempDir,
    pub home: PathBuf,
}

impl Place {
    pub fn new() -> Option<Self> {
        Some(Place { home: home()?, folder: tempfile::tempdir().unwrap() })
    }

    /// With a home of its own that has a second model, `other`: the tiny one's weights, pooled in another way.
    pub fn with_other_model() -> Option<Self> {
        let mut place = Place::new()?;
        place.home = place.own_home("other");
        let path = place.home.join("models/other/model.toml");
        let manifest = fs::read_to_string(&path).unwrap().replace("name = \"tiny\"", "name = \"other\"");
        fs::write(path, manifest.replace("pooling = \"mean\"", "pooling = \"cls\"")).unwrap();
        Some(place)
    }

    /// A home of its own with the runtime, and with the tiny model under this name; made once.
    pub fn own_home(&self, model: &str) -> PathBuf {
        let home = self.path("home");
        if !home.is_dir() {
            let to = home.join("models").join(model);
            fs::create_dir_all(&to).unwrap();
            std::os::unix::fs::symlink(self.home.join("runtime"), home.join("runtime")).unwrap();
            for name in ["model.toml", "model.safetensors", "tokenizer.json"] {
                fs::copy(tiny_model().join(name), to.join(name)).unwrap();
            }
        }
        home
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Writes a file, with the folders above it.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// The binary with the tiny model on the CPU, and neither folder nor server named.
    pub fn command(&self) -> Command {
        let mut command = bare();
        command
            .env("DISTILFACE_HOME", &self.home)
            .env("DISTILFACE_ENCODER__MODEL", tiny_model())
            .env("DISTILFACE_ENCODER__DEVICE", "cpu")
            .env("DISTILFACE_ENCODER__THREADS", "1")
            .current_dir(self.folder.path());
        command
    }

    /// A command on the data folder itself.
    pub fn cli(&self, args: &[&str]) -> Command {
        let mut command = self.command();
        command.arg("--data").arg(self.data()).args(args);
        command
    }

    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Ran {
        run(&mut self.cli(args))
    }

    #[track_caller]
    pub fn count(&self, collection: &str) -> u64 {
        let ran = self.run(&["document", "count", "-c", collection, "--json"]).code(0);
        ran.json()["documents"].as_u64().unwrap()
    }

    /// A server on a free port and this data folder.
    #[track_caller]
    pub fn serve(&self) -> Server {
        self.serve_with(&[])
    }

    /// The same with settings by variables.
    #[track_caller]
    pub fn serve_with(&self, variables: &[(&str, &str)]) -> Server {
        let mut command = self.command();
        command.envs(variables.iter().copied());
        self.serve_as(command)
    }

    /// The same by another way to run the binary.
    #[track_caller]
    pub fn serve_as(&self, mut command: Command) -> Server {
        command.arg("serve").arg("--data").arg(self.data()).args(["--listen", "127.0.0.1:0"]);
        command.args(["--metrics-listen", "off", "--json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Ok(told) = serde_json::from_str::<Json>(&line) else {
            panic!("the server did not start: {line:?}: {:#?}", finish(child));
        };
        Server { url: told["address"].as_str().unwrap().to_owned(), child: Some(child) }
    }

    /// A command on a server.
    pub fn remote(&self, server: &Server, args: &[&str]) -> Command {
        let mut command = self.command();
        command.args(["--server", &server.url]).args(args);
        command
    }
}

/// A running server; killed when dropped.
pub struct Server {
    pub url: String,
    pub child: Option<Child>,
}

impl Server {
    pub fn signal(&self, name: &str) {
        signal(self.child.as_ref().unwrap(), name);
    }

    /// What it left when it ended.
    #[track_caller]
    pub fn ended(mut self) -> Ran {
        finish(self.child.take().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// JSON lines of `n` different documents.
pub fn lines(range: std::ops::Range<usize>) -> String {
    range
        .map(|i| format!("{{\"id\":\"doc-{i}\",\"text\":\"Text number {i} about things.\",\"n\":{i}}}\n"))
        .collect()
}
