//! Network configurations, their versions, and what operations need of them.

use portcullis_podnet::cni::{CniError, CniVersion, ErrorCode, Request};
use serde_json::{Value, json};

use crate::request::{about, assert_error, configuration, parse};

#[test]
fn malformed_configurations_are_located() {
    use ErrorCode::{DecodingFailure, InvalidConfiguration, NotAvailable};
    let changed = |changes| configuration(changes);
    let rows: [(_, String, _, &[&str]); 20] = [
        ("nothing", String::new(), DecodingFailure, &["line 1 column 0"]),
        ("no JSON", "{\"name\": \"a\",\n oops}".to_owned(), DecodingFailure, &["line 2 column 2"]),
        ("cut off", "{\"name\": \"a\"".to_owned(), DecodingFailure, &["EOF", "line 1"]),
        ("two documents", format!("{0}{0}", changed(json!({}))), DecodingFailure, &["trailing"]),
        ("a list", "[1]".to_owned(), InvalidConfiguration, &["invalid type"]),
        ("no name", changed(json!({ "name": null })), InvalidConfiguration, &["name is missing"]),
        ("a bad name", changed(json!({ "name": "-x" })), InvalidConfiguration, &["\"-x\""]),
        ("a name with spaces", changed(json!({ "name": "a b" })), InvalidConfiguration, &["\"a b\""]),
        ("text for a number", changed(json!({ "mtu": "big" })), InvalidConfiguration, &["mtu", "big"]),
        ("a negative MTU", changed(json!({ "mtu": -1 })), InvalidConfiguration, &["mtu", "-1"]),
        ("an MTU without IPv6", changed(json!({ "mtu": 1000 })), InvalidConfiguration, &["mtu", "1000"]),
        ("a huge MTU", changed(json!({ "mtu": 70_000 })), InvalidConfiguration, &["mtu", "70000"]),
        (
            "another wiring",
            changed(json!({ "wiring": "ipvlan" })),
            InvalidConfiguration,
            &["wiring", "ipvlan", "ptp"],
        ),
        (
            "a bad CIDR",
            changed(json!({ "podCIDRs": ["10.0.0.0/24", "x"] })),
            InvalidConfiguration,
            &["podCIDRs[1]"],
        ),
        ("an empty bridge", changed(json!({ "bridge": "" })), InvalidConfiguration, &["bridge"]),
        (
            "a long bridge",
            changed(json!({ "bridge": "sixteen-bytes-xy" })),
            InvalidConfiguration,
            &["bridge"],
        ),
        ("no pod CIDR", changed(json!({ "podCIDRs": [] })), NotAvailable, &["pod CIDR"]),
        (
            "pod CIDRs of Go",
            changed(json!({ "podCIDRs": null })).replace('}', ",\"podCIDRs\":null}"),
            NotAvailable,
            &["pod CIDR"],
        ),
        (
            "a previous result of another form",
            changed(json!({ "prevResult": { "ips": [{ "address": "x" }] } })),
            InvalidConfiguration,
            &["prevResult.ips[0].address"],
        ),
        (
            "a port that is none",
            changed(
                json!({ "runtimeConfig": { "portMappings": [{ "hostPort": 70_000, "containerPort": 1, "protocol": "tcp" }] } }),
            ),
            InvalidConfiguration,
            &["runtimeConfig.portMappings[0].hostPort"],
        ),
    ];
    for (case, stdin, code, parts) in rows {
        assert_error(case, parse(&about("ADD"), &stdin), code, parts);
    }
}

#[test]
fn unknown_and_absent_keys_are_accepted() {
    let stdin = configuration(json!({
        "args": { "labels": { "a": "b" } }, "ipam": {}, "future": [1],
        "otherAddressDirs": Value::Null, "runtimeConfig": { "bandwidth": {} },
    }));
    let (call, version) = parse(&about("ADD"), &stdin).unwrap();
    assert_eq!(version, CniVersion::V1_1_0);
    assert_eq!(call.configuration.bridge(), "cni0");
    assert_eq!(call.configuration.mtu, 0);
    let stdin = configuration(json!({ "stateDir": null }));
    let (call, _) = parse(&about("ADD"), &stdin).unwrap();
    assert_eq!(call.configuration.state_dir().to_str(), Some("/run/portcullis/pod-network"));
}

#[test]
fn versions_decide_which_operations_exist() {
    const SUPPORTED: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
    // (operation, the first version with it)
    let rows = [("ADD", 0), ("DEL", 0), ("CHECK", 2), ("STATUS", 4), ("GC", 4)];
    for (verb, first) in rows {
        for (position, version) in SUPPORTED.into_iter().enumerate() {
            let stdin = configuration(
                json!({ "cniVersion": version, "prevResult": {}, "cni.dev/valid-attachments": [] }),
            );
            let parsed = parse(&about(verb), &stdin);
            if position >= first {
                assert_eq!(parsed.unwrap().1.name(), version, "{verb} in {version}");
            } else {
                assert_error(
                    verb,
                    parsed,
                    ErrorCode::IncompatibleVersion,
                    &[verb, SUPPORTED[first], version],
                );
            }
        }
        for version in ["", "0.1.0", "0.2.0", "1.2.0", "2.0.0", "1.1", "v1.1.0"] {
            let stdin = configuration(json!({ "cniVersion": version }));
            let expected = if version.is_empty() { "0.1.0" } else { version };
            assert_error(
                verb,
                parse(&about(verb), &stdin),
                ErrorCode::IncompatibleVersion,
                &[expected, "1.1.0"],
            );
        }
    }
}

#[test]
fn version_is_answered_whatever_the_input() {
    for (stdin, answered) in [
        ("", "1.1.0"),
        ("{}", "1.1.0"),
        ("nonsense", "1.1.0"),
        (r#"{"cniVersion":"0.4.0"}"#, "0.4.0"),
        (r#"{"cniVersion":"1.0.0","name":"a b"}"#, "1.0.0"),
    ] {
        let (call, _) = parse(&[("CNI_COMMAND", "VERSION")], stdin).unwrap();
        assert_eq!(call.request, Request::Version(answered.to_owned()), "{stdin}");
    }
}

#[test]
fn errors_have_the_configurations_version() {
    let stdin = configuration(json!({ "cniVersion": "0.4.0" }));
    let in_version = |environment: &[_], stdin: &str| parse(environment, stdin).unwrap_err().1.name();
    assert_eq!(in_version(&[("CNI_COMMAND", "ADD")], &stdin), "0.4.0");
    assert_eq!(in_version(&about("CHECK"), &stdin), "0.4.0");
    assert_eq!(in_version(&about("ADD"), "nonsense"), "1.1.0");
    assert_eq!(in_version(&[("CNI_COMMAND", "ADD")], "nonsense"), "1.1.0");
    assert_eq!(in_version(&about("ADD"), &configuration(json!({ "cniVersion": "0.2.0" }))), "1.1.0");

    let error = CniError::new(ErrorCode::NotAvailable, "not ready").with_details("why");
    assert_eq!(
        error.document(CniVersion::V1_0_0),
        json!({ "cniVersion": "1.0.0", "code": 50, "msg": "not ready", "details": "why" })
    );
    let error = CniError::new(ErrorCode::InvalidEnvironment, "CNI_IFNAME");
    assert_eq!(
        error.document(CniVersion::V1_1_0),
        json!({ "cniVersion": "1.1.0", "code": 4, "msg": "CNI_IFNAME" })
    );
}

#[test]
fn gc_needs_the_list_of_valid_attachments() {
    let gc = |changes| parse(&[("CNI_COMMAND", "GC")], &configuration(changes));
    assert_error("absent", gc(json!({})), ErrorCode::InvalidConfiguration, &["cni.dev/valid-attachments"]);
    let null = configuration(json!({})).replace('}', ",\"cni.dev/valid-attachments\":null}");
    assert_error(
        "null",
        parse(&[("CNI_COMMAND", "GC")], &null),
        ErrorCode::InvalidConfiguration,
        &["cni.dev/valid-attachments"],
    );
    let listed = json!([
        { "containerID": "c1", "ifname": "eth0" },
        { "containerID": "not ours", "ifname": "eth0" },
        { "containerID": "c2", "ifname": "net1" },
    ]);
    let (call, _) = gc(json!({ "cni.dev/valid-attachments": listed })).unwrap();
    let Request::Gc(valid) = call.request else { panic!("{call:?}") };
    assert_eq!(valid.iter().map(ToString::to_string).collect::<Vec<_>>(), ["c1@eth0", "c2@net1"]);
    let (call, _) = gc(json!({ "cni.dev/valid-attachments": [] })).unwrap();
    assert_eq!(call.request, Request::Gc(Vec::new()));
}

#[test]
fn check_needs_the_result_of_add() {
    let check = |changes| parse(&about("CHECK"), &configuration(changes));
    assert_error("absent", check(json!({})), ErrorCode::InvalidConfiguration, &["prevResult"]);
    assert!(check(json!({ "prevResult": { "ips": [] } })).is_ok());
    // DEL removes what it can without it, also if it is malformed.
    for previous in [Value::Null, json!({ "ips": 1 })] {
        assert!(parse(&about("DEL"), &configuration(json!({ "prevResult": previous }))).is_ok());
    }
    let mut environment = about("DEL");
    environment.retain(|(name, _)| *name != "CNI_NETNS");
    let (call, _) = parse(&environment, &configuration(json!({ "podCIDRs": null }))).unwrap();
    let Request::Del(container) = call.request else { panic!("{call:?}") };
    assert!(container.netns.as_os_str().is_empty());
}
