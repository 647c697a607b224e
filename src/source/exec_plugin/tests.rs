//! Plugins that end, fail, hang, and print too much or no valid credential.

use std::collections::HashMap;
use std::time::Duration;

use kube::config::{AuthInfo, ExecAuthCluster, ExecConfig};
use serde_json::{Value, json};

use super::{ExecPlugin, MAX_VARIABLE};

const V1: &str = "client.authentication.k8s.io/v1";
const V1BETA1: &str = "client.authentication.k8s.io/v1beta1";

/// A time limit that no plugin here reaches.
const LONG: u64 = 600_000;

/// Returns a shell script as a plugin's configuration.
fn config(script: &str) -> ExecConfig {
    ExecConfig {
        api_version: Some(V1.into()),
        command: Some("sh".into()),
        args: Some(vec!["-c".into(), script.into()]),
        ..ExecConfig::default()
    }
}

/// Returns a shell script as a plugin.
pub(super) fn plugin(script: &str) -> ExecPlugin {
    ExecPlugin::from_config(&config(script)).expect("a valid configuration")
}

/// Returns a script that prints a credential with this status.
fn prints(api_version: &str, status: &Value) -> String {
    format!("echo '{}'", json!({"kind": "ExecCredential", "apiVersion": api_version, "status": status}))
}

/// Runs a plugin. Returns the token or certificate, or the error.
fn result(plugin: &ExecPlugin, limit: u64) -> Result<String, String> {
    let program = plugin.program().with_time_limit(Duration::from_millis(limit));
    let credential = plugin.credential_of(&program).map_err(|error| error.message)?;
    let mut user = AuthInfo::default();
    credential.apply(&mut user);
    let user = serde_json::to_value(&user).expect("it can be serialized");
    let of = |field: &str| user[field].as_str().map(|text| format!("{field}={text}"));
    let parts = ["token", "client-certificate-data", "client-key-data"].into_iter().filter_map(of);
    Ok(parts.collect::<Vec<_>>().join(" "))
}

/// A secret that is in no error.
const SECRET: &str = "not-to-be-shown";

#[test]
fn results_of_plugins() {
    let token = json!({"token": SECRET});
    let yaml = format!("printf 'kind: ExecCredential\\napiVersion: {V1}\\nstatus:\\n  token: {SECRET}\\n'");
    let rows: Vec<(&str, String, u64, Result<&str, &str>)> = vec![
        ("token", prints(V1, &token), LONG, Ok("token=not-to-be-shown")),
        ("token with newline", prints(V1, &json!({"token": " a\n"})), LONG, Ok("token=a")),
        ("YAML, as client-go reads it", yaml, LONG, Ok("token=not-to-be-shown")),
        (
            "certificate",
            prints(V1, &json!({"clientCertificateData": "a", "clientKeyData": "b", "token": ""})),
            LONG,
            Ok("client-certificate-data=YQ== client-key-data=Yg=="),
        ),
        ("hangs", "sleep 1000".into(), 200, Err("it did not end within 0.2 s and was killed")),
        (
            "its child hangs",
            "sleep 1000 & wait".into(),
            200,
            Err("it did not end within 0.2 s and was killed"),
        ),
        (
            "ignores signals",
            "trap '' TERM; sleep 1000".into(),
            200,
            Err("it did not end within 0.2 s and was killed"),
        ),
        ("waits for input", "read line; echo \"got $line\"".into(), LONG, Err("syntax error at line 1")),
        (
            "prints without end",
            format!("while :; do echo {SECRET}; done"),
            LONG,
            Err("it printed more than 1048576 bytes and was killed"),
        ),
        (
            "errors without end",
            format!("while :; do echo {SECRET} >&2; done"),
            200,
            Err("it did not end within 0.2 s and was killed"),
        ),
        (
            "fails",
            "echo no session >&2; exit 3".into(),
            LONG,
            Err("it failed with exit status: 3: no session"),
        ),
        (
            "fails without a word",
            format!("echo {SECRET}; exit 1"),
            LONG,
            Err("exit status: 1: no error output"),
        ),
        ("killed", "kill -9 $$".into(), LONG, Err("it was ended by signal 9")),
        ("nothing", "true".into(), LONG, Err("it printed nothing, expected an ExecCredential in JSON")),
        (
            "no JSON",
            format!("echo '{{\"token\": {SECRET}'"),
            LONG,
            Err("not an ExecCredential in JSON: syntax error at line 1"),
        ),
        ("a string", format!("echo '\"{SECRET}\"'"), LONG, Err("kind \"\", expected \"ExecCredential\"")),
        (
            "another kind",
            format!("echo '{{\"kind\": \"Secret\", \"data\": \"{SECRET}\"}}'"),
            LONG,
            Err("kind \"Secret\""),
        ),
        (
            "another version",
            prints(V1BETA1, &token),
            LONG,
            Err(
                "apiVersion \"client.authentication.k8s.io/v1beta1\", expected \"client.authentication.k8s.io/v1\"",
            ),
        ),
        ("no status", prints(V1, &json!(null)), LONG, Err("no status, expected a token")),
        ("no credential", prints(V1, &json!({})), LONG, Err("both are missing")),
        (
            "no key",
            prints(V1, &json!({"clientCertificateData": SECRET})),
            LONG,
            Err("clientKeyData together"),
        ),
        ("a number", prints(V1, &json!({"token": 5})), LONG, Err("status.token: expected a string")),
        (
            "two words",
            prints(V1, &json!({"token": format!("{SECRET} b")})),
            LONG,
            Err("status.token: it has white space"),
        ),
        (
            "no time",
            prints(V1, &json!({"token": SECRET, "expirationTimestamp": "tomorrow"})),
            LONG,
            Err("status.expirationTimestamp: invalid time, expected RFC 3339"),
        ),
    ];
    for (case, script, limit, expected) in rows {
        match (result(&plugin(&script), limit), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{case}"),
            (Err(found), Err(expected)) => {
                assert!(found.contains(expected), "{case}: {found}");
                assert!(!found.contains(SECRET), "{case}: {found}");
            }
            (found, _) => panic!("{case}: {found:?}"),
        }
    }
    let shown = format!("{:?}", plugin(SECRET).credential_of(&plugin(&prints(V1, &token)).program()));
    assert!(shown.contains("ExecCredential(token") && !shown.contains(SECRET), "{shown}");
}

#[test]
fn plugin_receives_its_environment_and_the_cluster() {
    let cluster = ExecAuthCluster {
        server: Some("https://10.0.0.1:6443".into()),
        tls_server_name: Some("api".into()),
        certificate_authority_data: Some(b"a".to_vec()),
        config: Some(json!({"audience": "b"})),
        ..ExecAuthCluster::default()
    };
    let variable = HashMap::from([("name".into(), "PROFILE".into()), ("value".into(), "node".into())]);
    let expected_cluster = json!({
        "server": "https://10.0.0.1:6443", "tls-server-name": "api", "certificate-authority-data": "YQ==",
        "config": {"audience": "b"},
    });
    for (api_version, provide, spec) in [
        (V1, false, json!({"interactive": false})),
        (V1BETA1, true, json!({"interactive": false, "cluster": expected_cluster})),
    ] {
        let config = ExecConfig {
            api_version: Some(api_version.into()),
            env: Some(vec![variable.clone()]),
            provide_cluster_info: provide,
            cluster: Some(cluster.clone()),
            ..config("test -t 0 && exit 9; echo \"$PROFILE $KUBERNETES_EXEC_INFO\" >&2; exit 1")
        };
        let plugin = ExecPlugin::from_config(&config).expect("a valid configuration");
        let (end, _) = plugin.program().output().expect("it ends");
        let (profile, info) = end.message.split_once(' ').expect("two words");
        let info: Value = serde_json::from_str(info).expect("JSON");
        assert_eq!(profile, "node");
        assert_eq!(info, json!({"kind": "ExecCredential", "apiVersion": api_version, "spec": spec}));
    }
    let large = ExecAuthCluster { certificate_authority_data: Some(vec![b'a'; MAX_VARIABLE]), ..cluster };
    let config = ExecConfig { provide_cluster_info: true, cluster: Some(large), ..config("true") };
    let error = ExecPlugin::from_config(&config).expect_err("it is too large").to_string();
    assert!(error.contains("a variable may have 131072"), "{error}");
}
