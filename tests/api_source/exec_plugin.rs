//! Exec plugins of kubeconfigs that renew, fail, hang, and are rejected.

use std::time::Duration;

use portcullis::source::{Access, Selection};
use portcullis_cluster::Kind;
use portcullis_modes::external_program;
use serde_json::json;

use crate::api_server::ApiServer;
use crate::failures::ALL;
use crate::plugin::{PAST, Plugin, prints};
use crate::{TestSource, eventually, options, server_with, service};

/// Returns a source whose credentials are the plugin's.
async fn source_of(plugin: &Plugin, server: &ApiServer) -> TestSource {
    let access = Access { kubeconfig: Some(plugin.kubeconfig(server)), master: None, ..Access::default() };
    TestSource::with(access, vec![Selection::all(Kind::Service)], options()).await
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
    let mut source = source_of(&plugin, &server).await;
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
        let mut source = source_of(&plugin, &server).await;
        eventually("the credential is rejected", || source.status().error.is_some()).await;
        let problem = || source.source.health().credentials_problem();
        eventually("health has it", || {
            problem().is_some_and(|text| text.contains("rejected its credential"))
        })
        .await;
        plugin.set(&prints("second", expires));
        source.expect(&ALL).await;
        let problem = || source.source.health().credentials_problem();
        eventually("no problem remains", || problem().is_none()).await;
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
    let mut source = source_of(&plugin, &server).await;
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
        let mut source = source_of(&plugin, &server).await;
        eventually("the error is reported", || {
            source.status().error.is_some_and(|error| error.contains("plugin"))
        })
        .await;
        let problem = || source.source.health().credentials_problem();
        eventually("health has it", || problem().is_some_and(|text| text.contains("no request is sent")))
            .await;
        assert!(server.requests(&[]).is_empty(), "no request without a credential");
        plugin.set(&prints("first", "1 hour"));
        source.expect(&ALL).await;
        let problem = || source.source.health().credentials_problem();
        eventually("no problem remains", || problem().is_none()).await;
        assert!(plugin.runs() < 12, "{} runs", plugin.runs());
    }
}
