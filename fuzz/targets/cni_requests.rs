//! Requests to the CNI plugin: environment variables, then the network configuration on standard input, with the result of the previous
//! plugin.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use portcullis_podnet::cni::{Call, CniError, CniResult, CniVersion, Container, Request};

/// Parses a request: lines `NAME=VALUE`, an empty line, and standard input.
pub(crate) fn parse(input: &[u8]) {
    let (variables, stdin) = split(input);
    match Call::parse(|name| variables.get(name.as_bytes()).cloned(), stdin) {
        Ok((call, version)) => check_call(&call, version, input.len()),
        Err((error, version)) => check_error(&error, version),
    }
}

fn split(input: &[u8]) -> (BTreeMap<&[u8], OsString>, &[u8]) {
    let (mut variables, mut rest) = (BTreeMap::new(), input);
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        if line.is_empty() {
            return (variables, rest);
        }
        if let Some(equals) = line.iter().position(|byte| *byte == b'=') {
            // The kernel passes no NUL in an environment.
            let value = line[equals + 1..].split(|byte| *byte == 0).next().unwrap_or_default();
            variables.insert(&line[..equals], OsStr::from_bytes(value).to_owned());
        }
        if rest.is_empty() {
            return (variables, rest);
        }
    }
}

fn check_call(call: &Call, version: CniVersion, length: usize) {
    match &call.request {
        Request::Add(container) => {
            check_container(container);
            assert!(!container.netns.as_os_str().is_empty(), "ADD has a network namespace");
            assert!(!call.configuration.pod_cidrs.is_empty(), "ADD has a pod CIDR");
            let ports = call.configuration.port_mappings().expect("ADD checks the host ports");
            assert!(ports.len() <= length, "each host port is in the input");
            if let Some(previous) = &container.previous {
                check_result(previous);
                check_result(&CniResult::default().appended_to(previous.clone()));
            }
        }
        Request::Del(container) => check_container(container),
        Request::Check(container, previous) => {
            check_container(container);
            check_result(previous);
            assert!(version >= CniVersion::V0_4_0, "the first version with CHECK");
        }
        Request::Gc(valid) => {
            assert!(valid.len() <= length, "each attachment is in the input");
            assert!(version >= CniVersion::V1_1_0, "the first version with GC");
        }
        Request::Status => assert!(version >= CniVersion::V1_1_0, "the first version with STATUS"),
        Request::Version(_) => {}
    }
}

/// The key becomes a file name, an interface name and an alias.
fn check_container(container: &Container) {
    for part in [container.key.container_id(), container.key.interface()] {
        let is_file_name = !matches!(part, "" | "." | "..") && !part.contains(['/', '\0']);
        assert!(is_file_name, "{part:?}");
    }
    assert!(container.key.interface().len() <= 15, "{}", container.key.interface());
    let text = container.key.to_string();
    assert!(!text.contains(['\n', '/']), "{text:?}");
}

/// A result that is printed in a version is read as the same result, except for what the version does not have.
fn check_result(result: &CniResult) {
    for version in CniVersion::ALL {
        let document = result.document(version);
        assert_eq!(document["cniVersion"], version.name());
        let mut expected = result.clone();
        if version < CniVersion::V1_1_0 {
            expected.interfaces.iter_mut().for_each(|interface| interface.mtu = None);
        }
        let read = CniResult::parse(&document).expect("what was printed can be read");
        assert_eq!(read, expected, "{version}");
    }
}

fn check_error(error: &CniError, version: CniVersion) {
    let document = error.document(version);
    assert!(document["code"].as_u64().is_some_and(|code| code > 0), "{document}");
    assert!(document["msg"].as_str().is_some_and(|message| !message.is_empty()), "{document}");
    assert_eq!(document["cniVersion"], version.name());
}
