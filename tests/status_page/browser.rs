//! Headless Chromium, controlled by the DevTools protocol over pipes: messages in JSON, each ended by a zero byte.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::{Value, json};

/// Time limit for anything that the browser does, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// The size of a desktop window and of a telephone, in CSS pixels.
pub(crate) const DESKTOP: (u32, u32) = (1180, 860);
pub(crate) const PHONE: (u32, u32) = (390, 844);

/// A browser with one tab.
pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: String,
    next_id: u64,
    /// Errors that the page reported: of scripts, of the network, and violations of its content security policy.
    problems: Vec<String>,
    events: Vec<Value>,
    folder: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser in the network namespace of the calling thread.
    pub(crate) fn start() -> Self {
        Self::start_with(Command::new("sh"))
    }

    /// Starts a browser by a command that runs a shell, for example in the network namespace of a node.
    pub(crate) fn start_with(mut shell: Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        // The browser reads messages from descriptor 3 and writes to 4. Its sandbox needs another user than root.
        let script = "exec chromium --headless --remote-debugging-pipe --no-sandbox --disable-gpu \
                      --disable-dev-shm-usage --no-first-run --hide-scrollbars --disable-extensions --disable-component-update \
                      --disable-background-networking --user-data-dir=\"$1\" about:blank 3<&0 4>&1 </dev/null >/dev/null 2>\"$2\"";
        shell.args(["-c", script, "sh"]).arg(folder.path().join("profile")).arg(&log);
        // A browser that is killed leaves a folder with a socket there.
        shell.env("TMPDIR", folder.path());
        let mut child = shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("a shell can be started");
        let (to, out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, from) = mpsc::channel();
        std::thread::spawn(move || {
            for message in BufReader::new(out).split(0) {
                let Ok(bytes) = message else { return };
                let message = serde_json::from_slice(&bytes).expect("messages are JSON");
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Browser {
            child,
            to,
            from,
            session: String::new(),
            next_id: 0,
            problems: Vec::new(),
            events: Vec::new(),
            folder,
        };
        let tab = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let tab =
            browser.call("Target.attachToTarget", json!({"targetId": tab["targetId"], "flatten": true}));
        browser.session = tab["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.resize(DESKTOP);
        browser
    }

    /// Sets the size of the window, in CSS pixels. A narrow one is that of a telephone.
    pub(crate) fn resize(&mut self, (width, height): (u32, u32)) {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// Sets whether the reader prefers dark colors.
    pub(crate) fn prefer_dark(&mut self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": value}]});
        self.call("Emulation.setEmulatedMedia", features);
    }

    /// Sets whether pages may run scripts.
    pub(crate) fn allow_scripts(&mut self, allow: bool) {
        self.call("Emulation.setScriptExecutionDisabled", json!({"value": !allow}));
    }

    /// Opens an address and waits until it is loaded.
    pub(crate) fn open(&mut self, address: &str) {
        self.events.clear();
        let opened = self.call("Page.navigate", json!({"url": address}));
        assert_eq!(opened["errorText"], Value::Null, "{address}");
        self.wait_for_load(address);
    }

    /// Clicks on the element of a selector that opens another page, and waits until it is loaded.
    pub(crate) fn follow(&mut self, selector: &str) {
        self.events.clear();
        let script = format!("document.querySelector({}).click()", json!(selector));
        self.evaluate(&script);
        self.wait_for_load(selector);
    }

    fn wait_for_load(&mut self, what: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            self.receive(until, what);
        }
    }

    /// Evaluates an expression on the page and returns its value.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let result = self.call("Runtime.evaluate", parameters);
        assert_eq!(result["exceptionDetails"], Value::Null, "{expression}");
        result["result"]["value"].clone()
    }

    /// Evaluates an expression until it is true.
    pub(crate) fn wait_until(&mut self, what: &str, expression: &str) {
        let until = Instant::now() + PATIENCE;
        while self.evaluate(expression) != Value::Bool(true) {
            assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}\n{}", self.text());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Returns the visible text of the page.
    pub(crate) fn text(&mut self) -> String {
        self.evaluate("document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Presses a key.
    pub(crate) fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", json!({"type": kind, "key": key, "code": key}));
        }
    }

    /// Returns a picture of the window as PNG.
    pub(crate) fn picture(&mut self) -> Vec<u8> {
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"}));
        BASE64.decode(picture["data"].as_str().unwrap().as_bytes()).unwrap()
    }

    /// Returns the problems that pages have reported since the last call.
    pub(crate) fn take_problems(&mut self) -> Vec<String> {
        // Events before this response have arrived with it.
        self.evaluate("1");
        std::mem::take(&mut self.problems)
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        if let Err(error) = self.to.write_all(&bytes) {
            panic!("{method}: {error}\n{}", self.log());
        }
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(response) = self.receive(until, method).filter(|message| message["id"] == id) {
                assert_eq!(response["error"], Value::Null, "{method}");
                return response["result"].clone();
            }
        }
    }

    /// Waits for a message. Returns it if it is a response, and keeps it if it is an event.
    fn receive(&mut self, until: Instant, what: &str) -> Option<Value> {
        let limit = until.saturating_duration_since(Instant::now());
        let message = match self.from.recv_timeout(limit) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => {
                panic!("no response within {PATIENCE:?}: {what}\n{}", self.log())
            }
            Err(RecvTimeoutError::Disconnected) => panic!("the browser has ended: {what}\n{}", self.log()),
        };
        if message["id"] != Value::Null {
            return Some(message);
        }
        self.problems.extend(problem(&message));
        self.events.push(message);
        None
    }

    fn log(&mut self) -> String {
        let path: PathBuf = self.folder.path().join("log");
        let log = std::fs::read_to_string(path).unwrap_or_default();
        format!("{:?}\n{log}", self.child.try_wait())
    }
}

/// Returns the problem that an event reports.
fn problem(event: &Value) -> Option<String> {
    let parameters = &event["params"];
    match event["method"].as_str()? {
        "Log.entryAdded" if parameters["entry"]["level"] == "error" => {
            Some(format!("{}: {}", parameters["entry"]["url"], parameters["entry"]["text"]))
        }
        "Runtime.exceptionThrown" => Some(parameters["exceptionDetails"].to_string()),
        "Runtime.consoleAPICalled" if parameters["type"] == "error" => Some(parameters["args"].to_string()),
        _ => None,
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
