//! A web server for tests, whose answers come from a closure and may be truncated, slow or wrong.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// A request that the server has received.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// The headers, with names in lower case.
    pub(crate) headers: HashMap<String, String>,
    /// Number of requests before this one.
    pub(crate) number: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Returns `N` from the header `Range: bytes=N-`.
    pub(crate) fn from(&self) -> Option<usize> {
        let range = self.header("range")?.strip_prefix("bytes=")?;
        range.strip_suffix('-')?.parse().ok()
    }
}

/// An answer of the server, with its deliberate faults.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Number of bytes of the body after which the connection ends.
    pub(crate) cut: Option<usize>,
    /// Number of bytes of the body after which the server pauses each time, and the length of the pause.
    pub(crate) pace: Option<(usize, Duration)>,
    /// Whether `Content-Length` is left out, so that the end of the connection is the end of the body.
    pub(crate) open_end: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, body: &[u8]) -> Self {
        Self {
            status,
            body: body.to_vec(),
            ..Self::default()
        }
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    pub(crate) fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    pub(crate) fn paced(mut self, bytes: usize, pause: Duration) -> Self {
        self.pace = Some((bytes, pause));
        self
    }

    pub(crate) fn redirect(target: &str) -> Self {
        Self::new(302, b"elsewhere").with("Location", target)
    }
}

/// Returns the answer of a correct server with range requests, for one version of a file.
pub(crate) fn serve_file(request: &Request, content: &[u8], etag: &str) -> Reply {
    let is_same = request.header("if-range").is_none_or(|tag| tag == etag);
    match request.from().filter(|_| is_same) {
        Some(from) if from >= content.len() => {
            Reply::new(416, b"").with("Content-Range", format!("bytes */{}", content.len()))
        }
        Some(from) => Reply::new(206, &content[from..]).with("ETag", etag).with(
            "Content-Range",
            format!("bytes {from}-{}/{}", content.len() - 1, content.len()),
        ),
        None => Reply::new(200, content).with("ETag", etag),
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (log, done) = (Arc::clone(&requests), Arc::clone(&stop));
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                thread::spawn(move || {
                    // In some tests the client disconnects early, which is not an error.
                    let _ = handle(stream.unwrap(), &log, answer.as_ref());
                });
            }
        });
        Self {
            address,
            requests,
            stop,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes the listener
    }
}

fn handle(
    stream: TcpStream,
    log: &Mutex<Vec<Request>>,
    answer: &dyn Fn(&Request) -> Reply,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let request = {
        let mut log = log.lock().unwrap();
        let request = Request {
            path,
            headers,
            number: log.len(),
        };
        log.push(request.clone());
        request
    };
    send(stream, &answer(&request))
}

fn send(mut stream: TcpStream, reply: &Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Test\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    let is_chunked = reply
        .headers
        .iter()
        .any(|(name, _)| name == "Transfer-Encoding");
    if !reply.open_end && !is_chunked {
        let length = reply.body.len().to_string();
        head.extend(["Content-Length: ", &length, "\r\n"]);
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    let end = reply.cut.unwrap_or(usize::MAX).min(reply.body.len());
    let (step, pause) = reply.pace.unwrap_or((usize::MAX, Duration::ZERO));
    for piece in reply.body[..end].chunks(step) {
        if is_chunked {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
        }
        stream.write_all(piece)?;
        if is_chunked {
            stream.write_all(b"\r\n")?;
        }
        stream.flush()?;
        thread::sleep(pause);
    }
    if is_chunked && reply.cut.is_none() {
        stream.write_all(b"0\r\n\r\n")?;
    }
    // Closing with unread input would reset the connection and lose what was sent.
    stream.shutdown(std::net::Shutdown::Write)?;
    let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
    let _ = stream.read(&mut [0; 64]);
    Ok(())
}
