//! Drives a headless Chromium by the DevTools protocol, over a pair of pipes: no port and no WebSocket is needed.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

/// Time in which the browser must answer, and in which something must happen on a page.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running browser with one page.
pub(crate) struct Browser {
    child: Child,
    writer: File,
    messages: Receiver<Value>,
    next: u64,
    session: Option<String>,
    /// Exceptions and messages of errors on the page.
    faults: Vec<String>,
    /// Folder of the browser's own files, which is removed with it.
    _home: tempfile::TempDir,
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let mut files =
        std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name)));
    files.find(|file| file.is_file())
}

impl Browser {
    /// Starts the browser with an empty page; prints a message and returns `None` without Chromium.
    pub(crate) fn start() -> Option<Self> {
        let Some(program) = program() else {
            println!("skipped: no Chromium in PATH");
            return None;
        };
        let home = tempfile::tempdir().unwrap();
        let [to, from] = ["to", "from"].map(|name| home.path().join(name));
        let made = Command::new("mkfifo").args([&to, &from]).status().unwrap();
        assert!(made.success(), "mkfifo: {made}");
        // The protocol is spoken on the file descriptors 3 and 4, which the shell opens.
        let child = Command::new("sh")
            .args([
                "-c",
                "to=$1; from=$2; shift 2; exec \"$@\" 3<\"$to\" 4>\"$from\"",
                "sh",
            ])
            .args([&to, &from, &program])
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--remote-debugging-pipe",
            ])
            .args([
                "--no-first-run",
                "--hide-scrollbars",
                "--force-color-profile=srgb",
                "--lang=en",
            ])
            .arg(format!(
                "--user-data-dir={}",
                home.path().join("profile").display()
            ))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let writer = OpenOptions::new().write(true).open(&to).unwrap();
        let reader = File::open(&from).unwrap();
        let (sender, messages) = mpsc::channel();
        std::thread::spawn(move || {
            for message in BufReader::new(reader).split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).unwrap();
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self {
            child,
            writer,
            messages,
            next: 0,
            session: None,
            faults: Vec::new(),
            _home: home,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Calls a method of the protocol and returns its result.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.writer.write_all(&bytes).unwrap();
        loop {
            let answer = self.messages.recv_timeout(PATIENCE);
            let answer = answer.unwrap_or_else(|error| panic!("{method}: {error}"));
            if answer["id"] == self.next {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.notice(&answer);
        }
    }

    /// Notes what went wrong on the page.
    fn notice(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                self.faults.push(params["exceptionDetails"].to_string());
            }
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                self.faults.push(params["entry"].to_string());
            }
            _ => {}
        }
    }

    /// Returns the faults since the last call, without those that contain `expected`.
    pub(crate) fn faults(&mut self, expected: &str) -> Vec<String> {
        let is_strange = |fault: &String| expected.is_empty() || !fault.contains(expected);
        self.faults.drain(..).filter(is_strange).collect()
    }

    /// Opens an address and waits until it is loaded.
    pub(crate) fn open(&mut self, address: &str) {
        self.call("Page.navigate", json!({ "url": address }));
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// Returns the value of an expression, or of its promise.
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true });
        let answer = self.call("Runtime.evaluate", params);
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) fn wait_for(&mut self, expression: &str) {
        let started = Instant::now();
        while self.eval(&format!("Boolean({expression})")) != true {
            if started.elapsed() > PATIENCE {
                let page = self.eval("document.body.innerText");
                panic!(
                    "never true: {expression}\n{page}\nfaults: {:?}",
                    self.faults
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns the middle of an element in the window, after scrolling to it.
    pub(crate) fn middle(&mut self, selector: &str) -> (f64, f64) {
        let selector = json!(selector);
        let place = self.eval(&format!(
            "(() => {{ const e = document.querySelector({selector}); e.scrollIntoView({{ block: 'center' }});
             const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()"
        ));
        (place[0].as_f64().unwrap(), place[1].as_f64().unwrap())
    }

    /// Moves the mouse to a place in the window.
    pub(crate) fn hover(&mut self, (x, y): (f64, f64)) {
        let params = json!({ "type": "mouseMoved", "x": x, "y": y });
        self.call("Input.dispatchMouseEvent", params);
    }

    /// Clicks a place in the window.
    pub(crate) fn click_at(&mut self, (x, y): (f64, f64)) {
        self.hover((x, y));
        for kind in ["mousePressed", "mouseReleased"] {
            let params = json!({ "type": kind, "x": x, "y": y, "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", params);
        }
    }

    /// Clicks the middle of an element.
    pub(crate) fn click(&mut self, selector: &str) {
        let place = self.middle(selector);
        self.click_at(place);
    }

    /// Types a text into the focused element.
    pub(crate) fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Presses and releases a key, such as `Enter` or `ArrowLeft`.
    pub(crate) fn key(&mut self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "Backspace" => 8,
            "Escape" => 27,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            "Tab" => 9,
            _ => 0,
        };
        for kind in ["keyDown", "keyUp"] {
            let mut params =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && key.chars().count() == 1 {
                params["text"] = json!(key);
            }
            if kind == "keyDown" && key == "Enter" {
                params["text"] = json!("\r");
            }
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    /// Sets the size of the window, and whether it is a phone.
    pub(crate) fn resize(&mut self, width: u32, height: u32, phone: bool) {
        let params =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone });
        self.call("Emulation.setDeviceMetricsOverride", params);
    }

    /// Sets whether the page is shown dark.
    pub(crate) fn dark(&mut self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let params = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.call("Emulation.setEmulatedMedia", params);
    }

    /// Saves downloads in a folder.
    pub(crate) fn download_to(&mut self, folder: &Path) {
        let params = json!({ "behavior": "allow", "downloadPath": folder });
        let session = self.session.take(); // a setting of the browser, not of the page
        self.call("Browser.setDownloadBehavior", params);
        self.session = session;
    }

    /// Puts files into an input of files.
    pub(crate) fn choose_file(&mut self, selector: &str, file: &Path) {
        let document = self.call("DOM.getDocument", json!({}));
        let query = json!({ "nodeId": document["root"]["nodeId"], "selector": selector });
        let node = self.call("DOM.querySelector", query);
        let params = json!({ "nodeId": node["nodeId"], "files": [file] });
        self.call("DOM.setFileInputFiles", params);
    }

    /// Saves what the window shows as a PNG, if a folder is named by `ZEG_LOOK`.
    pub(crate) fn look(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("ZEG_LOOK") else {
            return;
        };
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap());
        std::fs::create_dir_all(&folder).unwrap();
        let file = Path::new(&folder).join(format!("{name}.png"));
        std::fs::write(file, bytes.unwrap()).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to close, it ends its other processes, too.
        let _ = self
            .writer
            .write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None))
            && started.elapsed() < Duration::from_secs(5)
        {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
