//! A hub on this machine: the paths, headers and redirects of the real one, with faults on demand. Tests of the command
//! line use it too.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::json;

/// The one commit that there is.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The one repository that there is.
pub const REPOSITORY: &str = "owner/some-model";

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub path: String,
    /// First byte asked for.
    pub start: Option<usize>,
    pub token: Option<String>,
}

/// What goes wrong with an answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// A status and a header instead of it.
    Status(u16, &'static str, &'static str),
    /// The connection closes after so many bytes of the content.
    Cut(usize),
    /// After so many bytes of the content nothing comes any more.
    Stall(usize),
}

type Faults = Box<dyn FnMut(&Request) -> Option<Fault> + Send>;

/// Serves until the process ends.
pub struct FakeHub {
    pub url: String,
    state: Arc<Mutex<State>>,
}

struct State {
    url: String,
    files: BTreeMap<String, Vec<u8>>,
    sums: BTreeMap<String, String>,
    requests: Vec<Request>,
    faults: Faults,
}

impl FakeHub {
    /// `sums`: the SHA-256 of those files that are kept outside of git.
    pub fn new(files: BTreeMap<String, Vec<u8>>, sums: BTreeMap<String, String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = State { url: url.clone(), files, sums, requests: Vec::new(), faults: Box::new(|_| None) };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                // A client that goes away is part of the play.
                thread::spawn(move || drop(answer(&stream, &state)));
            }
        });
        FakeHub { url, state }
    }

    /// From now on, what goes wrong with which request.
    pub fn faults(&self, faults: impl FnMut(&Request) -> Option<Fault> + Send + 'static) {
        self.state.lock().unwrap().faults = Box::new(faults);
    }

    pub fn file(&self, name: &str, content: impl Into<Vec<u8>>) {
        self.state.lock().unwrap().files.insert(name.to_owned(), content.into());
    }

    pub fn remove(&self, name: &str) {
        self.state.lock().unwrap().files.remove(name);
    }

    /// All requests so far, but those that only ask for the length.
    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }
}

fn answer(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut request = Request { path, start: None, token: None };
    let mut probe = false;
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let (start, end) = value.trim_start_matches("bytes=").split_once('-').unwrap();
                request.start = start.parse().ok();
                probe = !end.is_empty();
            }
            "authorization" => request.token = Some(value.trim_start_matches("Bearer ").to_owned()),
            _ => {}
        }
    }
    let (reply, content, fault) = {
        let mut state = state.lock().unwrap();
        if !probe {
            state.requests.push(request.clone());
        }
        // Only what is really fetched goes wrong; asking for the length is part of it.
        let fault = if probe { None } else { (state.faults)(&request) };
        let (reply, content) = state.reply(&request, probe);
        (reply, content, fault)
    };
    let mut stream = stream;
    match fault {
        Some(Fault::Status(code, name, value)) => {
            write!(
                stream,
                "HTTP/1.1 {code} No\r\n{name}: {value}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
        }
        Some(Fault::Cut(bytes)) if bytes < content.len() => {
            stream.write_all(reply.as_bytes())?;
            stream.write_all(&content[..bytes])
        }
        Some(Fault::Stall(bytes)) if bytes < content.len() => {
            stream.write_all(reply.as_bytes())?;
            stream.write_all(&content[..bytes])?;
            stream.flush()?;
            // The process of the test ends long before.
            thread::sleep(Duration::from_secs(3600));
            Ok(())
        }
        _ => {
            stream.write_all(reply.as_bytes())?;
            stream.write_all(&content)
        }
    }
}

impl State {
    /// Head and content.
    fn reply(&self, request: &Request, probe: bool) -> (String, Vec<u8>) {
        let plain = |status: &str, headers: &str, content: Vec<u8>| {
            let length = content.len();
            (
                format!(
                    "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
                ),
                content,
            )
        };
        let path = request.path.split('?').next().unwrap();
        if path == format!("/api/models/{REPOSITORY}/revision/main")
            || path == format!("/api/models/{REPOSITORY}/revision/{COMMIT}")
        {
            let siblings: Vec<_> = self
                .files
                .iter()
                .map(|(name, content)| match self.sums.get(name) {
                    Some(sum) => json!({"rfilename": name, "size": content.len(), "lfs": {"sha256": sum}}),
                    None => json!({"rfilename": name, "size": content.len()}),
                })
                .collect();
            let answer = json!({"sha": COMMIT, "siblings": siblings}).to_string();
            return plain("200 OK", "Content-Type: application/json\r\n", answer.into_bytes());
        }
        if path.starts_with(&format!("/api/models/{REPOSITORY}/")) {
            return plain("404 Not Found", "X-Error-Code: RevisionNotFound\r\n", Vec::new());
        }
        let named = |prefix: &str| {
            let name = path.strip_prefix(prefix)?;
            Some((name, self.files.get(name)?))
        };
        if let Some((name, content)) = named(&format!("/{REPOSITORY}/resolve/{COMMIT}/")) {
            if let Some(sum) = self.sums.get(name) {
                // Large files lie elsewhere, and only this answer knows their sum.
                let headers = format!(
                    "X-Repo-Commit: {COMMIT}\r\nX-Linked-Etag: \"{sum}\"\r\nETag: \"other\"\r\nLocation: {}/elsewhere/{name}\r\n",
                    self.url
                );
                return plain("302 Found", &headers, Vec::new());
            }
            let etag = format!("{:040x}", content.iter().map(|&byte| u64::from(byte)).sum::<u64>());
            return ranged(
                content,
                request,
                probe,
                &format!("X-Repo-Commit: {COMMIT}\r\nETag: \"{etag}\"\r\n"),
            );
        }
        if let Some((_, content)) = named("/elsewhere/") {
            return ranged(content, request, probe, "");
        }
        plain("404 Not Found", "X-Error-Code: EntryNotFound\r\n", Vec::new())
    }
}

fn ranged(content: &[u8], request: &Request, probe: bool, headers: &str) -> (String, Vec<u8>) {
    let start = request.start.unwrap_or(0);
    if start >= content.len() {
        let range = format!("Content-Range: bytes */{}\r\nContent-Length: 0\r\n", content.len());
        return (format!("HTTP/1.1 416 No\r\n{range}Connection: close\r\n\r\n"), Vec::new());
    }
    let end = if probe { start + 1 } else { content.len() };
    let part = content[start..end].to_vec();
    let range = format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, content.len());
    let length = part.len();
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\n{headers}{range}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    (head, part)
}
