//! A watcher of the health endpoints during a scenario.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use portcullis_lab::NetNs;
use serde_json::Value;

use super::node;

const INTERVAL: Duration = Duration::from_millis(150);

/// Requests `/healthz` and `/livez` from a thread of its own, and collects responses that are wrong whatever happens.
pub(crate) struct HealthWatcher {
    stop: Arc<AtomicBool>,
    violations: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<usize>>,
}

impl HealthWatcher {
    pub(crate) fn start(netns: NetNs) -> Self {
        let (stop, violations) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, found) = (Arc::clone(&stop), Arc::clone(&violations));
        let watch = move || {
            let mut responses = 0;
            while !stopped.load(Ordering::Relaxed) {
                for path in ["/healthz", "/livez"] {
                    // No response: the daemon is starting or ends.
                    let Some(response) = node::get(&netns, "127.0.0.1:10256", path) else { continue };
                    responses += 1;
                    if let Some(violation) = violation(path, &response) {
                        found.lock().expect("no thread panics with it").push(violation);
                    }
                }
                thread::sleep(INTERVAL);
            }
            responses
        };
        HealthWatcher { stop, violations, thread: Some(thread::spawn(watch)) }
    }

    /// Returns the violations so far.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.lock().expect("no thread panics with it").clone()
    }

    /// Returns the number of responses.
    pub(crate) fn stop(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for HealthWatcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Returns how a response is wrong, if it is: another status than its body, status 503 without a reason, or a failure of
/// `/livez`, as nothing in a scenario would be mended by a restart.
fn violation(path: &str, response: &str) -> Option<String> {
    let (head, body) = response.split_once("\r\n\r\n")?;
    // The daemon was killed in the middle of a response.
    let body: Value = serde_json::from_str(body).ok()?;
    let is_success = head.starts_with("HTTP/1.1 200");
    let is_healthy = body["healthy"] == true && body["nodeEligible"] != false;
    let has_reason = body["problems"].as_array().is_some_and(|problems| !problems.is_empty())
        || body["nodeEligible"] == false;
    if is_success != is_healthy {
        return Some(format!("{path}: the status contradicts the body: {response}"));
    }
    if !is_success && !has_reason {
        return Some(format!("{path}: a failure without a reason: {response}"));
    }
    (!is_success && path == "/livez").then(|| format!("{path} failed: {body}"))
}

pub(crate) mod tests {
    use super::*;

    pub(crate) fn failures_need_a_reason() {
        let response = |code: u16, body: &str| format!("HTTP/1.1 {code} X\r\na: b\r\n\r\n{body}");
        let rows = [
            ("/healthz", 200, r#"{"healthy":true,"nodeEligible":true}"#, true),
            ("/healthz", 200, r#"{"healthy":false,"nodeEligible":true}"#, false),
            ("/healthz", 503, r#"{"healthy":false}"#, false),
            ("/healthz", 503, r#"{"healthy":false,"problems":["IPv4: no"]}"#, true),
            ("/livez", 503, r#"{"healthy":false,"problems":["IPv4: no"]}"#, false),
            ("/healthz", 200, r#"{"heal"#, true),
        ];
        for (path, code, body, is_right) in rows {
            assert_eq!(violation(path, &response(code, body)).is_none(), is_right, "{path} {code} {body}");
        }
    }
}
