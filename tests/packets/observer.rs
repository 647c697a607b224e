//! A running `portcullis observe`.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The longest time until an expected line: much longer than events need, for busy and emulated machines.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `portcullis observe`, which is killed at the end.
pub(crate) struct Observer {
    child: Child,
    pub(crate) lines: Receiver<String>,
}

impl Observer {
    /// Starts a program with the arguments of `observe`.
    pub(crate) fn spawn(mut command: Command, socket: PathBuf, arguments: &[&str]) -> Self {
        command.arg("observe").arg("--socket").arg(socket).args(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Observer { child, lines }
    }

    /// Waits for a line of JSON of this kind for which `is_wanted` returns true.
    pub(crate) fn wait_for(&self, kind: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let (until, mut before) = (Instant::now() + PATIENCE, Vec::new());
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(rest);
            let line = line.unwrap_or_else(|_| panic!("no {kind} as expected, only {before:#?}"));
            let line: Value = serde_json::from_str(&line).unwrap();
            if line["kind"] == kind && is_wanted(&line) {
                return line;
            }
            before.push(line.to_string());
        }
    }

    /// Kills the process without a chance to clean up.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
