//! Environment variables.

use std::collections::HashMap;

use portcullis_podnet::cni::ErrorCode;
use serde_json::json;

use crate::request::{about, assert_error, configuration, parse};

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
