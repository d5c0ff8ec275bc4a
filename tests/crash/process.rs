//! `distilface serve` as a process of its own: started, told to end, and killed at any moment.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tonic::transport::{Channel, Endpoint};

/// How long a server may take until it serves, on a busy machine and with all that it has to recover.
const START: Duration = Duration::from_secs(240);

/// A process that was started and may not serve yet; killed when dropped.
pub(super) struct Launch {
    child: Child,
}

impl Launch {
    /// Starts a server of the folder `data`, with settings as environment variables name them, without their prefix.
    /// What it logs is appended to the file `log`.
    pub(super) fn new(data: &Path, settings: &[(&str, &str)], log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_distilface"));
        command.envs(settings.iter().map(|(key, value)| (format!("DISTILFACE_{key}"), value)));
        Launch::spawn(command, data, "127.0.0.1:0", log.into())
    }

    fn spawn(mut command: Command, data: &Path, metrics_listen: &str, log: Stdio) -> Self {
        let child = command
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--device", "cpu"])
            .args(["--metrics-listen", metrics_listen])
            .args(["--model", concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny")])
            .arg("--data")
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        Launch { child }
    }

    /// Waits until it serves; what it said instead, where it does not.
    pub(super) async fn serving(mut self) -> Result<Server, String> {
        let out = self.child.stdout.take().unwrap();
        let reading = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(out).read_line(&mut line).unwrap();
            line
        });
        let line = tokio::time::timeout(START, reading)
            .await
            .map_err(|_| format!("the server does not serve after {START:?}"))?
            .unwrap();
        let said: serde_json::Value = serde_json::from_str(&line)
            .map_err(|e| format!("the server said {line:?}: {e}; run `make setup` first"))?;
        let address = said["address"].as_str().unwrap();
        let address = address.trim_start_matches("http://").to_owned();
        let metrics = said["metrics"]
            .as_str()
            .map(|url| url.trim_start_matches("http://").trim_end_matches("/metrics").to_owned());
        let channel = connect(&address).await;
        Ok(Server { launch: self, channel, address, metrics })
    }

    pub(super) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it does. Its exit code.
    fn terminate(mut self) -> Option<i32> {
        let told = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        // Gone already, as a rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection of its own.
async fn connect(address: &str) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// A server that serves; killed when dropped.
pub(super) struct Server {
    launch: Launch,
    pub(super) channel: Channel,
    /// Host and port.
    pub(super) address: String,
    /// Host and port of `/metrics` and `/healthz`.
    pub(super) metrics: Option<String>,
}

impl Server {
    pub(super) async fn start(data: &Path) -> Self {
        Server::start_as(Command::new(env!("CARGO_BIN_EXE_distilface")), data).await
    }

    /// With at most so many files open.
    pub(super) async fn start_with_files(data: &Path, files: u32) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")]);
        command.arg(env!("CARGO_BIN_EXE_distilface"));
        Server::start_as(command, data).await
    }

    async fn start_as(command: Command, data: &Path) -> Self {
        Launch::spawn(command, data, "off", Stdio::null()).serving().await.unwrap()
    }

    /// Number of its process.
    pub(super) fn process(&self) -> u32 {
        self.launch.child.id()
    }

    /// Another connection.
    pub(super) async fn connect(&self) -> Channel {
        connect(&self.address).await
    }

    pub(super) fn kill(self) {
        self.launch.kill();
    }

    /// Asks it to end, and waits until it does. Its exit code.
    pub(super) fn terminate(self) -> Option<i32> {
        self.launch.terminate()
    }
}
