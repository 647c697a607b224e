//! Exec plugins of kubeconfigs that renew, fail, hang, and are rejected.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use portcullis::source::{Access, Selection};
use portcullis_cluster::Kind;
use portcullis_modes::external_program;
use serde_json::json;
use tempfile::TempDir;

use crate::api_server::ApiServer;
use crate::failures::ALL;
use crate::{TestSource, eventually, options, server_with, service};

/// A plugin in a folder. Each run adds a line to the file `runs`.
struct Plugin {
    folder: TempDir,
}

/// A time in the past, which a plugin's issuer whose clock is wrong could return.
const PAST: &str = "2020-01-01T00:00:00Z";

impl Plugin {
    fn new(script: &str) -> Self {
        let plugin = Plugin { folder: tempfile::tempdir().expect("a folder") };
        plugin.set(script);
        plugin
    }

    /// Replaces the plugin's script. The kubeconfig stays as it is.
    fn set(&self, script: &str) {
        let path = self.folder.path().join("plugin");
        let new = self.folder.path().join("new");
        let runs = self.folder.path().join("runs");
        fs::write(&new, format!("#!/bin/sh\necho >> {}\n{script}\n", runs.display()))
            .expect("it can be written");
        fs::set_permissions(&new, Permissions::from_mode(0o755)).expect("it can be changed");
        fs::rename(new, path).expect("it can be renamed");
    }

    /// Returns the number of runs.
    fn runs(&self) -> usize {
        fs::read_to_string(self.folder.path().join("runs")).map_or(0, |text| text.lines().count())
    }

    /// Returns a kubeconfig that names the plugin relative to itself.
    fn kubeconfig(&self, server: &ApiServer) -> PathBuf {
        let path = server.kubeconfig(self.folder.path(), "");
        let text = fs::read_to_string(&path).expect("it is there");
        let exec = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin", "interactiveMode": "IfAvailable",
            "provideClusterInfo": true,
        });
        fs::write(&path, text.replace("\"token\":\"\"", &format!("\"exec\":{exec}")))
            .expect("it can be written");
        path
    }

    async fn source(&self, server: &ApiServer) -> TestSource {
        let access = Access { kubeconfig: Some(self.kubeconfig(server)), master: None, ..Access::default() };
        TestSource::with(access, vec![Selection::all(Kind::Service)], options()).await
    }
}

/// Returns a script that prints a token that expires at a time, as `date` understands it; never if that is empty.
fn prints(token: &str, expires: &str) -> String {
    let time = match expires {
        "" => String::new(),
        expires => format!(", \"expirationTimestamp\": \"$(date -u -d '{expires}' +%Y-%m-%dT%H:%M:%SZ)\""),
    };
    format!(
        "cat <<END\n{{\"kind\": \"ExecCredential\", \"apiVersion\": \"client.authentication.k8s.io/v1\", \
         \"status\": {{\"token\": \"{token}\"{time}}}}}\nEND"
    )
}

#[tokio::test]
async fn credential_is_renewed_before_it_expires() {
    let server = server_with(&["a", "b"]);
    server.require_token("first");
    // It gets the server's address and has no terminal.
    let plugin = Plugin::new(&format!(
        "echo \"$KUBERNETES_EXEC_INFO\" | grep -q '\"server\":\"{}' || exit 7\ntest -t 0 && exit 8\n{}",
        server.url(),
        prints("first", "10 seconds")
    ));
    let mut source = plugin.source(&server).await;
    source.expect(&ALL).await;
    plugin.set(&prints("second", "1 hour"));
    eventually("the plugin is run again", || plugin.runs() == 2).await;
    server.require_token("second");
    server.disconnect_all();
    server.apply(service("c", json!({})));
    source.until("+default/c").await;
    assert_eq!(plugin.runs(), 2, "one run for each token");
}

#[tokio::test]
async fn rejected_credential_is_replaced() {
    for expires in ["", "1 hour", PAST] {
        let server = server_with(&["a", "b"]);
        server.require_token("second");
        let plugin = Plugin::new(&prints("first", expires));
        let mut source = plugin.source(&server).await;
        eventually("the credential is rejected", || source.status().error.is_some()).await;
        plugin.set(&prints("second", expires));
        source.expect(&ALL).await;
        // Its waits double: without them each request would run it.
        assert!(plugin.runs() < 12, "{} runs", plugin.runs());
    }
}

#[tokio::test]
async fn failing_plugin_keeps_the_old_credential_while_it_is_valid() {
    external_program::set_time_limit(Duration::from_secs(2));
    let faults = [
        ("hangs", "sleep 1000", "did not end within"),
        ("fails", "echo no session >&2; exit 1", "no session"),
        ("prints without end", "while :; do echo secret; done", "printed more than 1048576 bytes"),
        ("no JSON", "echo secret", "not an ExecCredential"),
        (
            "another version",
            "echo '{\"kind\": \"ExecCredential\", \"apiVersion\": \"client.authentication.k8s.io/v2\"}'",
            "v2",
        ),
        ("gone", "exec /no/program", "not found"),
    ];
    futures::future::join_all(faults.map(fail_and_recover)).await;
}

async fn fail_and_recover((case, script, expected): (&str, &str, &str)) {
    let server = server_with(&["a", "b"]);
    server.require_token("first");
    let plugin = Plugin::new(&prints("first", "45 seconds"));
    let mut source = plugin.source(&server).await;
    source.expect(&ALL).await;
    plugin.set(script);
    let problem = || source.source.health().credentials_problem();
    eventually(case, || problem().is_some_and(|text| text.contains(expected))).await;
    let text = problem().expect("it was there");
    assert!(
        text.contains("plugin") && text.contains(expected) && text.contains("stays in use"),
        "{case}: {text}"
    );
    assert!(!text.contains("secret"), "{case}: {text}");
    // It is still used.
    server.disconnect_all();
    server.apply(service("c", json!({})));
    source.until("+default/c").await;
    // It is replaced without help.
    plugin.set(&prints("second", "1 hour"));
    server.require_token("second");
    server.disconnect_all();
    server.apply(service("d", json!({})));
    source.until("+default/d").await;
    eventually(case, || source.source.health().credentials_problem().is_none()).await;
}

#[tokio::test]
async fn plugin_that_fails_at_the_start_is_run_again() {
    external_program::set_time_limit(Duration::from_millis(500));
    for script in ["sleep 1000", "exit 1", "echo secret"] {
        let server = server_with(&["a", "b"]);
        server.require_token("first");
        let plugin = Plugin::new(script);
        let mut source = plugin.source(&server).await;
        eventually("the error is reported", || {
            source.status().error.is_some_and(|error| error.contains("plugin"))
        })
        .await;
        assert!(server.requests(&[]).is_empty(), "no request without a credential");
        plugin.set(&prints("first", "1 hour"));
        source.expect(&ALL).await;
        assert!(plugin.runs() < 12, "{} runs", plugin.runs());
    }
}
