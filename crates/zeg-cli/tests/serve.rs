//! `zeg serve` as a process: it says where it listens, answers as `zeg segment` does, and ends as it is asked to.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // in tests

#[path = "json/validate.rs"]
mod validate;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use assert_cmd::cargo::CommandCargoExt as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;
use zeg::image::{RgbImage, write_rgb_png};

/// Returns `zeg` in a folder, with a cache of its own.
fn zeg(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("zeg").unwrap();
    command
        .args(arguments)
        .current_dir(folder)
        .env_remove("ZEG_DEVICE")
        .env_remove("ZEG_THREADS")
        .env("ZEG_CACHE", folder.join("cache"))
        .env("TMPDIR", folder.join("tmp"))
        .env("ZEG_OFFLINE", "1");
    command
}

/// A running server.
struct Server {
    process: Child,
    /// Host and port.
    place: String,
}

impl Server {
    fn start(folder: &Path, more: &[&str]) -> Self {
        let arguments = [&["serve", "--model", "mini", "--port", "0"], more].concat();
        let mut process = zeg(folder, &arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        lines.read_line(&mut line).unwrap();
        let place = line.trim().strip_prefix("http://").unwrap().to_owned();
        Self { process, place }
    }

    /// Sends a request and returns status and body.
    fn send(&self, head: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect(&self.place).ok()?;
        let head = format!("{head}\r\nHost: {}\r\nConnection: close\r\n", self.place);
        let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), body].concat()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let status = std::str::from_utf8(answer.get(9..12)?).ok()?;
        Some((status.parse().ok()?, answer[end + 4..].to_vec()))
    }

    fn segment(&self, image: &[u8]) -> Option<(u16, Vec<u8>)> {
        let mut body = Vec::new();
        for (field, value) in [("classes", "red, blue, green"), ("output", "labels")] {
            body.extend(part(&format!("name=\"{field}\"")));
            body.extend(value.as_bytes());
            body.extend(b"\r\n");
        }
        body.extend(part("name=\"image\"; filename=\"a.png\""));
        body.extend(image);
        body.extend(b"\r\n--b--\r\n");
        let head = "POST /v1/segment HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b";
        self.send(head, &body)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id() as i32), signal).unwrap();
    }

    /// Waits for the end and returns the exit code; `None` if a signal ended it.
    fn ended(&mut self, within: Duration) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < within, "the server still runs");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn part(disposition: &str) -> Vec<u8> {
    format!("--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n").into_bytes()
}

/// A folder with an image, `a.png`.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tmp")).unwrap();
    let colours = [[220, 40, 40], [40, 60, 220], [40, 180, 60]];
    let image = RgbImage::from_fn(150, 110, |x, y| {
        let block = (x / 30 + 2 * (y / 30)) % 3;
        image::Rgb(colours[block as usize])
    });
    write_rgb_png(&folder.path().join("a.png"), &image).unwrap();
    folder
}

/// Returns the names of all files in a folder that are being written, with those in its folders.
fn half_files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            found.extend(half_files(&entry.path()));
        } else if entry.path().extension().is_some_and(|end| end == "tmp") {
            found.push(name);
        }
    }
    found
}

#[test]
fn the_server_answers_as_segment_does_and_ends_on_request() {
    let folder = folder();
    let segment = [
        "segment",
        "a.png",
        "--model",
        "mini",
        "--classes",
        "red, blue, green",
        "-o",
        "out",
    ];
    assert!(zeg(folder.path(), &segment).status().unwrap().success());
    let wanted = fs::read(folder.path().join("out/a.png")).unwrap();
    let image = fs::read(folder.path().join("a.png")).unwrap();

    let mut server = Server::start(folder.path(), &["--quiet", "--json=served.json"]);
    let document = fs::read(folder.path().join("served.json")).unwrap();
    let document: Value = serde_json::from_slice(&document).unwrap();
    let outputs = zeg_cli::schema::outputs();
    let (_, schema) = outputs.iter().find(|(name, _)| *name == "serve").unwrap();
    let schema = schema.clone().to_value();
    assert_eq!(validate::faults(&schema, &document), None, "{document}");
    assert_eq!(document["address"], format!("http://{}", server.place));
    assert_eq!(document["models"][0]["file"], "mini");

    assert_eq!(server.segment(&image), Some((200, wanted)));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.ended(Duration::from_secs(10)), Some(0));
}

/// A stop during load answers what was accepted; a kill leaves nothing that the next server trips over.
#[test]
fn load_survives_stops_and_kills() {
    let folder = folder();
    let image = fs::read(folder.path().join("a.png")).unwrap();
    let mut wanted = None;
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGINT] {
        let mut server = Server::start(folder.path(), &[]);
        let (_, first) = server
            .segment(&image)
            .filter(|(status, _)| *status == 200)
            .unwrap();
        assert_eq!(*wanted.get_or_insert_with(|| first.clone()), first);
        let started = Instant::now();
        thread::scope(|scope| {
            let clients: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let mut answered = 0;
                        while started.elapsed() < Duration::from_secs(20) {
                            match server.segment(&image) {
                                Some((200, body)) => {
                                    assert_eq!(body, first);
                                    answered += 1;
                                }
                                Some((429 | 503, _)) => {}
                                Some((status, body)) => {
                                    panic!("{status}: {}", String::from_utf8_lossy(&body))
                                }
                                None => break,
                            }
                        }
                        answered
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(700));
            server.signal(signal);
            for client in clients {
                assert!(client.join().unwrap() > 0);
            }
        });
        let code = server.ended(Duration::from_secs(35));
        let wanted_code = if signal == Signal::SIGKILL {
            None
        } else {
            Some(0)
        };
        assert_eq!(code, wanted_code);
    }
    // The last server was started after the kill, and cleaned up.
    assert_eq!(half_files(folder.path()), Vec::<String>::new());
    let left = fs::read_dir(folder.path().join("tmp")).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn wrong_starts_are_errors_with_a_way_out() {
    let folder = folder();
    let told = |arguments: &[&str], code: i32| {
        let arguments = [&["serve", "--model", "mini"], arguments].concat();
        let output = zeg(folder.path(), &arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        text
    };
    let text = told(&["--host", "0.0.0.0"], 2);
    assert!(
        text.contains("--token-file") && text.contains("--no-auth"),
        "{text}"
    );
    fs::write(folder.path().join("token"), "short\n").unwrap();
    let text = told(&["--token-file", "token"], 1);
    assert!(
        text.contains("at least 16") && text.contains("hint: "),
        "{text}"
    );
    assert!(told(&["--host", "no.such.name.invalid"], 2).contains("--host"));
    assert!(told(&["--model", "mini"], 2).contains("--model NAME=mini"));
    assert!(told(&["--allow-origin", "example.org"], 2).contains("https://"));
    assert!(told(&["--max-body", "0"], 2).contains("--max-body"));
    assert!(told(&["--allow-host", "http://a"], 2).contains("--allow-host"));
    fs::write(folder.path().join("key"), "a-key-of-label-studio\n").unwrap();
    assert!(told(&["--label-studio-key", "key"], 2).contains("--label-studio"));
    // A table that cannot be read is an error of the start, and not of every request.
    assert!(told(&["--text", "no-such-file.npy", "--port", "0"], 1).contains("no-such-file.npy"));
    fs::write(folder.path().join("bad.npy"), "no table").unwrap();
    assert!(told(&["--text", "bad.npy", "--port", "0"], 1).contains("bad.npy"));
    assert!(told(&["--model", "b=missing.safetensors", "--port", "0"], 1).contains("missing"));

    let server = Server::start(folder.path(), &[]);
    let port = server.place.rsplit(':').next().unwrap();
    let text = told(&["--port", port], 1);
    assert!(
        text.contains("cannot listen") && text.contains("--port"),
        "{text}"
    );
}

/// The default settings once started as many threads as there are cores before the option was read.
#[test]
fn any_number_of_threads_can_be_asked_for() {
    let folder = folder();
    let image = fs::read(folder.path().join("a.png")).unwrap();
    let mut answers = Vec::new();
    for threads in ["1", "2", "3"] {
        let server = Server::start(folder.path(), &["--threads", threads]);
        answers.push(server.segment(&image).unwrap());
    }
    assert_eq!(answers[0].0, 200);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}

/// Strangers name classes, so their embeddings must not fill the disk.
#[test]
fn class_names_of_requests_leave_no_files() {
    let folder = folder();
    let image = fs::read(folder.path().join("a.png")).unwrap();
    let server = Server::start(folder.path(), &[]);
    assert_eq!(server.segment(&image).unwrap().0, 200);
    let cache = folder.path().join("cache");
    let kept = fs::read_dir(cache.join("embeddings"))
        .into_iter()
        .flatten()
        .count();
    assert_eq!(kept, 0, "files in {}", cache.display());
}

/// A page can give its own name the address of this machine, whatever the server asks of callers.
#[test]
fn a_server_without_a_token_takes_only_its_own_names() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--no-auth", "--allow-host", "zeg.example"]);
    let status = |host: &str| {
        let mut stream = TcpStream::connect(&server.place).unwrap();
        let request =
            format!("GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer[9..12].to_owned()
    };
    assert_eq!(status("evil.example:8000"), "403");
    assert_eq!(status("localhost"), "200");
    assert_eq!(status("zeg.example:8000"), "200");
}
