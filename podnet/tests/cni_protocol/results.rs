//! Results, of this plugin and of the previous one in the chain.

use portcullis_podnet::cni::{CniResult, CniVersion, ErrorCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::request::{configuration, parse};

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
