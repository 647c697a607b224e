//! Tests of the redactor.

use data_encoding::BASE64;

use super::known_secrets::KnownSecrets;
use super::*;

fn without_known_secrets() -> Redactor {
    Redactor {
        known: KnownSecrets::default().search().expect("nothing to search for"),
        patterns: patterns::all(),
    }
}

#[test]
fn text_that_looks_like_a_secret_is_replaced_and_its_surrounding_kept() {
    let rows = [
        ("GET https://admin:hunter2@10.0.0.1:6443/api", "GET https://<redacted>@10.0.0.1:6443/api"),
        ("proxy http://user@proxy:8080", "proxy http://<redacted>@proxy:8080"),
        ("Authorization: Bearer abc.def-123", "Authorization: <redacted> <redacted>"),
        ("header \"Bearer abcdef123456\"", "header \"Bearer <redacted>\""),
        (r#"{"password": "a \" b", "user": "x"}"#, r#"{"password": "<redacted>", "user": "x"}"#),
        (r#"{"nested":"{\"token\":\"abc\"}"}"#, r#"{"nested":"{\"token\":\"<redacted>\"}"}"#),
        ("AWS_SECRET_ACCESS_KEY=abc/def other", "AWS_SECRET_ACCESS_KEY=<redacted> other"),
        ("curl --token abcdef --url x", "curl --token <redacted> --url x"),
        ("client-key-data: QUJD", "client-key-data: <redacted>"),
        ("?token=abc&limit=5", "?token=<redacted>&limit=5"),
        ("got eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl here", "got <redacted> here"),
        ("a\n-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\nb", "a\n<redacted>\nb"),
        ("cut off: -----BEGIN CERTIFICATE-----\nAAAA\nBBBB", "cut off: <redacted>"),
        ("x LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCkFB y", "x <redacted> y"),
    ];
    let redactor = without_known_secrets();
    for (text, expected) in rows {
        let (redacted, count) = redactor.redact(text);
        assert_eq!(redacted, expected);
        assert!(count > 0, "{text}");
        assert_eq!(redactor.redact(&redacted).0, redacted, "redacting again changes nothing");
    }
}

/// What operators need to read, and what a reader of rules must be able to restore.
#[test]
fn rules_metrics_and_names_are_not_changed() {
    let redactor = without_known_secrets();
    for text in [
        "-A KUBE-SERVICES -d 10.96.0.7/32 -p tcp -m comment --comment \"shop/token-issuer:http cluster IP\" -j KUBE-SVC-A",
        "+++ wanted/IPv4/vault/secrets-api",
        "portcullis_source_synced{kind=\"EndpointSlice\"} 1",
        "10.96.0.1 . tcp . 443 : 10.0.0.5 . 6443",
        "failed to program Service shop/passwords: kernel rejected session affinity; retrying in 30s",
        "kubeconfig /etc/kubernetes/kube-proxy.conf: no such file",
        "https://10.0.0.1:6443/api/v1/services?limit=500",
    ] {
        assert_eq!(redactor.redact(text), (text.to_owned(), 0));
    }
}

#[test]
fn known_secrets_are_replaced_in_every_encoding_and_position() {
    const SECRET: &str = "pl4nted \"secret\" of an exec plugin";
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let kubeconfig = folder.path().join("kubeconfig");
    let text = serde_json::json!({"users": [{"name": "a", "user": {"exec": {"env": [{"name": "X", "value": SECRET}]}}}]});
    std::fs::write(&kubeconfig, text.to_string()).expect("it can be written");
    let redactor = Redactor::new(Some(kubeconfig), None).expect("few secrets");
    for before in ["", "a", "ab", "abc"] {
        for after in ["", "x", "xy", "xyz"] {
            let plain = format!("{before}{SECRET}{after}");
            for encoded in [
                plain.clone(),
                serde_json::to_string(&plain).expect("a text"),
                BASE64.encode(plain.as_bytes()),
                data_encoding::BASE64URL.encode(plain.as_bytes()),
                form_urlencoded::byte_serialize(plain.as_bytes()).collect(),
            ] {
                let (redacted, count) = redactor.redact(&format!("text {encoded} text"));
                assert_eq!(count, 1, "{encoded}: {redacted}");
                assert!(redacted.starts_with("text ") && redacted.ends_with(" text"), "{redacted}");
                assert!(redacted.len() < REDACTED.len() + 24, "{encoded}: {redacted}");
            }
        }
    }
}
