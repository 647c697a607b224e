//! The CNI specification as tables: requests, errors, results and versions.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashMap;
use std::ffi::OsString;

use portcullis_podnet::cni::{Call, CniError, CniResult, CniVersion, ErrorCode, Request};
use proptest::prelude::*;
use serde_json::{Value, json};

type Parsed = Result<(Call, CniVersion), (CniError, CniVersion)>;

fn parse(environment: &[(&str, &str)], stdin: &str) -> Parsed {
    let environment: HashMap<_, _> = environment.iter().copied().collect();
    Call::parse(|name| environment.get(name).map(OsString::from), stdin.as_bytes())
}

/// The environment of an operation about a container.
fn about(verb: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/c1"),
        ("CNI_IFNAME", "eth0"),
    ]
}

/// The configuration with other or (by null) without values.
fn configuration(changes: Value) -> String {
    let mut document = json!({
        "cniVersion": "1.1.0", "name": "portcullis", "type": "portcullis",
        "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"], "stateDir": "/state",
    });
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(document.as_object_mut().unwrap().remove(key)),
            value => document[key] = value.clone(),
        }
    }
    document.to_string()
}

/// Asserts the code of an error and that its message contains these parts.
fn assert_error(case: &str, parsed: Parsed, code: ErrorCode, parts: &[&str]) {
    let (error, _) = parsed.expect_err(case);
    assert_eq!(error.code, code, "{case}: {error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{case}: {error} lacks {part:?}");
    }
}

#[test]
fn required_variables_are_reported_together() {
    use ErrorCode::InvalidEnvironment;
    let only = |names: &[&str], verb| -> Vec<_> {
        about(verb).into_iter().filter(|(name, _)| *name == "CNI_COMMAND" || names.contains(name)).collect()
    };
    let all = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];
    // (operation, variables, missing ones)
    let rows: [(_, &[&str], &[&str]); 12] = [
        ("ADD", &[], &all),
        ("ADD", &["CNI_CONTAINERID", "CNI_IFNAME"], &["CNI_NETNS"]),
        ("ADD", &["CNI_NETNS"], &["CNI_CONTAINERID", "CNI_IFNAME"]),
        ("ADD", &all, &[]),
        ("DEL", &[], &["CNI_CONTAINERID", "CNI_IFNAME"]),
        ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME"], &[]),
        ("CHECK", &[], &all),
        ("CHECK", &["CNI_NETNS", "CNI_IFNAME"], &["CNI_CONTAINERID"]),
        ("CHECK", &all, &[]),
        ("STATUS", &[], &[]),
        ("GC", &[], &[]),
        ("VERSION", &[], &[]),
    ];
    let stdin = configuration(json!({ "prevResult": {}, "cni.dev/valid-attachments": [] }));
    for (verb, present, missing) in rows {
        let case = format!("{verb} with {present:?}");
        let parsed = parse(&only(present, verb), &stdin);
        match missing {
            [] => assert!(parsed.is_ok(), "{case}: {parsed:?}"),
            missing => assert_error(&case, parsed, InvalidEnvironment, missing),
        }
    }
    assert_error("no operation", parse(&[], &stdin), InvalidEnvironment, &["CNI_COMMAND is missing"]);
    for name in all {
        let mut environment = about("ADD");
        environment.iter_mut().filter(|(other, _)| *other == name).for_each(|(_, value)| *value = "");
        assert_error(
            "an empty variable",
            parse(&environment, &stdin),
            InvalidEnvironment,
            &[name, "missing"],
        );
    }
}

#[test]
fn malformed_variables_are_named() {
    let long_id = "a".repeat(240);
    let rows = [
        ("CNI_COMMAND", "add", "unknown CNI_COMMAND \"add\""),
        ("CNI_COMMAND", "UPDATE", "expected one of ADD, DEL, CHECK, STATUS, GC, VERSION"),
        ("CNI_CONTAINERID", "-a", "CNI_CONTAINERID"),
        ("CNI_CONTAINERID", "a/b", "CNI_CONTAINERID"),
        ("CNI_CONTAINERID", "a b", "CNI_CONTAINERID"),
        ("CNI_CONTAINERID", "ä", "CNI_CONTAINERID"),
        ("CNI_CONTAINERID", &long_id, "CNI_CONTAINERID"),
        ("CNI_IFNAME", ".", "CNI_IFNAME"),
        ("CNI_IFNAME", "..", "CNI_IFNAME"),
        ("CNI_IFNAME", "a/b", "CNI_IFNAME"),
        ("CNI_IFNAME", "a:b", "CNI_IFNAME"),
        ("CNI_IFNAME", "a\tb", "CNI_IFNAME"),
        ("CNI_IFNAME", "sixteen-bytes-xy", "CNI_IFNAME"),
        ("CNI_ARGS", "IP", "CNI_ARGS: \"IP\" is not of the form KEY=VALUE"),
        ("CNI_ARGS", "IP=10.0.0.1;MAC=2;K8S_POD_NAME=a", "unknown argument IP, MAC"),
        ("CNI_ARGS", "IgnoreUnknown=0;IP=10.0.0.1", "unknown argument IP"),
        ("CNI_ARGS", "IgnoreUnknown=perhaps", "IgnoreUnknown=perhaps"),
    ];
    for (name, value, part) in rows {
        let mut environment: HashMap<_, _> = about("ADD").into_iter().collect();
        environment.insert(name, value);
        let environment: Vec<_> = environment.into_iter().collect();
        let parsed = parse(&environment, &configuration(json!({})));
        assert_error(&format!("{name}={value:?}"), parsed, ErrorCode::InvalidEnvironment, &[part]);
    }
}

#[test]
fn arguments_of_runtimes_are_accepted() {
    let rows = [
        "",
        ";",
        "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=1-2",
        "IgnoreUnknown=1;IP=10.0.0.1",
        "IP=10.0.0.1;IgnoreUnknown=true",
        "IgnoreUnknown=TRUE;A=b=c",
    ];
    for arguments in rows {
        let mut environment = about("ADD");
        environment.push(("CNI_ARGS", arguments));
        let parsed = parse(&environment, &configuration(json!({})));
        assert!(parsed.is_ok(), "{arguments}: {parsed:?}");
    }
    // Arguments must not keep a container from being removed.
    let mut environment = about("DEL");
    environment.push(("CNI_ARGS", "IP"));
    assert!(parse(&environment, &configuration(json!({}))).is_ok());
}

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

/// A result as `ADD` returns it.
fn result() -> Value {
    json!({
        "interfaces": [
            { "name": "pc0123", "mac": "02:00:00:00:00:01", "mtu": 1450 },
            { "name": "eth0", "mac": "02:00:00:00:00:02", "mtu": 1450, "sandbox": "/run/netns/c1" },
        ],
        "ips": [
            { "address": "10.244.1.5/32", "gateway": "169.254.1.1", "interface": 1 },
            { "address": "fd00::5/128", "gateway": "fe80::1", "interface": 1 },
        ],
        "routes": [{ "dst": "0.0.0.0/0", "gw": "169.254.1.1" }, { "dst": "::/0", "gw": "fe80::1" }],
        "dns": { "nameservers": ["10.96.0.10"] },
    })
}

#[test]
fn results_have_the_form_of_their_version() {
    let parsed = CniResult::parse(&result()).unwrap();
    for version in CniVersion::ALL {
        let mut expected = result();
        expected["cniVersion"] = json!(version.name());
        if version < CniVersion::V1_0_0 {
            expected["ips"][0]["version"] = json!("4");
            expected["ips"][1]["version"] = json!("6");
        }
        if version < CniVersion::V1_1_0 {
            for interface in expected["interfaces"].as_array_mut().unwrap() {
                interface.as_object_mut().unwrap().remove("mtu");
            }
        }
        assert_eq!(parsed.document(version), expected, "{version}");
        let without_mtu = CniResult::parse(&parsed.document(version)).unwrap();
        assert_eq!(
            (without_mtu.ips, without_mtu.routes),
            (parsed.ips.clone(), parsed.routes.clone()),
            "{version}"
        );
    }
}

#[test]
fn a_previous_result_is_kept() {
    let previous = json!({
        "interfaces": [{ "name": "lo", "sandbox": "/run/netns/c1", "pciID": "0000:01" }],
        "ips": [{ "address": "127.0.0.1/8", "interface": 0 }],
        "routes": [{ "dst": "192.0.2.0/24", "priority": 7 }],
        "dns": { "domain": "example" },
    });
    let previous = CniResult::parse(&previous).unwrap();
    let all = CniResult { dns: None, ..CniResult::parse(&result()).unwrap() }.appended_to(previous);
    let document = all.document(CniVersion::V1_1_0);
    let positions: Vec<_> = all.ips.iter().map(|ip| ip.interface).collect();
    assert_eq!(positions, [Some(0), Some(2), Some(2)]);
    assert_eq!(document["interfaces"][0]["pciID"], "0000:01");
    assert_eq!(document["routes"][0]["priority"], 7);
    assert_eq!(document["dns"]["domain"], "example");
    assert_eq!(all.interface_in("/run/netns/c1", "eth0"), Some(2));
    assert_eq!(all.interface_in("/run/netns/c1", "pc0123"), None, "the host's");
    assert_eq!(all.interface_in("/run/netns/other", "eth0"), None);
}

#[test]
fn a_position_beyond_the_interfaces_is_an_error() {
    let mut document = result();
    document["ips"][1]["interface"] = json!(2);
    let error = CniResult::parse(&document).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidConfiguration);
    assert!(error.to_string().contains("position 2"), "{error}");
}

proptest! {
    #[test]
    fn random_input_never_panics(verb in "ADD|DEL|CHECK|GC|STATUS|VERSION|.*", id in ".*", input in ".*") {
        let environment =
            [("CNI_COMMAND", verb.as_str()), ("CNI_CONTAINERID", &id), ("CNI_NETNS", "/x"), ("CNI_IFNAME", "eth0")];
        let _ = parse(&environment, &input);
        let _ = parse(&environment, &configuration(json!({ "prevResult": { "ips": [{ "address": input }] } })));
    }
}
