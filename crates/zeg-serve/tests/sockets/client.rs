//! A server in this process, and a client that sends any bytes.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;
use zeg::Segmenter;
use zeg_serve::{Ending, Models, ServeConfig, ServedModel, Stop, serve};

/// Longest time that a test waits for an answer.
const PATIENCE: Duration = Duration::from_mins(2);

/// A server with `mini`.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Stop,
    thread: Option<JoinHandle<anyhow::Result<Ending>>>,
}

impl Server {
    /// Starts a server and waits until it is ready.
    pub(crate) fn start(config: ServeConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stop = Stop::default();
        let (sender, ready) = mpsc::channel();
        let asked = stop.clone();
        let thread = thread::spawn(move || {
            let load = || {
                let segmenter = Segmenter::load(Path::new("mini"))?;
                anyhow::Ok(Models::new(vec![ServedModel::new("mini", segmenter)])?)
            };
            let ready = move |address: SocketAddr, _: &Models| anyhow::Ok(sender.send(address)?);
            serve(config, listener, load, ready, &asked)
        });
        Self {
            address: ready.recv_timeout(PATIENCE).unwrap(),
            stop,
            thread: Some(thread),
        }
    }

    /// Starts a server with the usual limits.
    pub(crate) fn usual() -> Self {
        Self::start(ServeConfig::default())
    }

    /// Asks the server to stop.
    pub(crate) fn ask_to_stop(&self) {
        self.stop.request();
    }

    /// Waits until the server has stopped.
    pub(crate) fn ended(mut self) -> Ending {
        self.thread.take().unwrap().join().unwrap().unwrap()
    }

    /// Opens a connection.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes and reads the answer until the server closes the connection.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // A server that has answered already may not read the rest.
        let _ = stream.write_all(bytes);
        Answer::read(&mut stream)
    }

    /// Sends a request.
    pub(crate) fn send(&self, request: &Request) -> Answer {
        self.raw(&request.bytes())
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(&Request::new("GET", path))
    }

    /// Returns the number of requests that wait and that are worked on.
    pub(crate) fn depth(&self) -> [u64; 2] {
        let status = self.get("/v1/status").json();
        let queue = &status["queue"];
        [
            queue["waiting"].as_u64().unwrap(),
            queue["running"].as_u64().unwrap(),
        ]
    }

    /// Waits until the queue looks as wanted.
    pub(crate) fn wait_for(&self, wanted: impl Fn([u64; 2]) -> bool) {
        for _ in 0..4000 {
            if wanted(self.depth()) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the queue is still {:?}", self.depth());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.request();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &str, path: &str) -> Self {
        Self {
            line: format!("{method} {path} HTTP/1.1"),
            headers: vec![
                ("Host".into(), "localhost".into()),
                ("Connection".into(), "close".into()),
            ],
            body: Vec::new(),
        }
    }

    pub(crate) fn post(path: &str) -> Self {
        Self::new("POST", path)
    }

    /// Sets a header, in place of an earlier value.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers
            .retain(|(own, _)| !own.eq_ignore_ascii_case(name));
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body with its length.
    pub(crate) fn body(mut self, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.header("Content-Type", kind)
            .header("Content-Length", &length)
    }

    pub(crate) fn json(self, value: &Value) -> Self {
        self.body("application/json", value.to_string())
    }

    /// Sets a form as the body.
    pub(crate) fn form(self, form: &Form) -> Self {
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        self.body(&kind, form.bytes())
    }

    pub(crate) fn head(&self) -> String {
        let headers = self.headers.iter();
        let lines: Vec<String> = headers
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        format!("{}\r\n{}\r\n", self.line, lines.concat())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        [self.head().into_bytes(), self.body.clone()].concat()
    }
}

pub(crate) const BOUNDARY: &str = "boundary-of-a-test";

/// A form.
#[derive(Debug, Clone, Default)]
pub(crate) struct Form {
    parts: Vec<u8>,
}

impl Form {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A form with an image and classes.
    pub(crate) fn ask(image: &[u8], classes: &str) -> Self {
        Self::new().file("a.png", image).text("classes", classes)
    }

    pub(crate) fn text(mut self, name: &str, value: &str) -> Self {
        let part = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        );
        self.parts.extend(part.into_bytes());
        self
    }

    pub(crate) fn file(mut self, name: &str, content: &[u8]) -> Self {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        self.parts.extend(head.into_bytes());
        self.parts.extend(content);
        self.parts.extend(b"\r\n");
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        [&self.parts[..], format!("--{BOUNDARY}--\r\n").as_bytes()].concat()
    }
}

/// An answer; status 0 if the server closed the connection without one.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads until the connection ends.
    pub(crate) fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        let mut part = vec![0; 1 << 16];
        // A connection that is reset after the answer has answered.
        while let Ok(count @ 1..) = stream.read(&mut part) {
            bytes.extend(&part[..count]);
        }
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else {
            return Self {
                status: 0,
                headers: Vec::new(),
                body: bytes.to_vec(),
            };
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        let body = bytes[end + 4..].to_vec();
        let chunked = ("transfer-encoding".to_owned(), "chunked".to_owned());
        assert!(!headers.contains(&chunked), "answers have a length");
        Self {
            status: status.parse().unwrap(),
            headers,
            body,
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{}: {error}: {}", self.status, self.text()))
    }

    /// Checks that the answer is a problem of this kind with a detail.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{}",
            self.text()
        );
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["type"], format!("/docs#{code}"));
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        problem
    }
}

/// Ends the sending half of a connection.
pub(crate) fn end_sending(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
}
