//! Tests of the desired state: the files in `desired/` contain cases of objects and the expected result.
//!
//! ```text
//! == description of the case
//! Service web {spec: {…}}                    kind, name, and the rest of the object as YAML
//! EndpointSlice web-1 in ns of web {…}       in its namespace (`default`), labelled with its Service;
//!     …                                      an indented line continues the object
//! =>
//! problem: …                                 in the order of the objects
//! default/web:http/tcp 10.96.0.1:80 …        each port in each family
//!   10.244.1.10:80 local ready cluster       its serving endpoints, and their traffic policies
//!   total 3                                  the number of endpoints in the slices
//! default/web: external IP … is not served …  the frontends at which a Service is not served
//! ```
//!
//! The node is `node-a`, in `zone-a` unless the case has a Node of that name.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use portcullis_cluster::desired::{Desired, ServicePort};
use portcullis_cluster::{Event, Index, Kind, Name, Object};
use serde_json::{Value, json};

const NODE: &str = "Node node-a {metadata: {labels: {topology.kubernetes.io/zone: zone-a}}}";

/// Parses an object of a case.
fn object(text: &str) -> (Kind, Value) {
    let (head, body) = text.split_at(text.find('{').unwrap_or_else(|| panic!("{text}: expected {{…}}")));
    let mut value: Value = serde_saphyr::from_str(body).unwrap_or_else(|error| panic!("{text}: {error}"));
    let words: Vec<&str> = head.split_whitespace().collect();
    let after = |word: &str| words.iter().position(|w| *w == word).map(|at| words[at + 1]);
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == words[0]).unwrap();
    // `\n` represents a newline in a name.
    value["metadata"]["name"] = words[1].replace("\\n", "\n").into();
    value["metadata"]["namespace"] = after("in").unwrap_or("default").into();
    if let Some(service) = after("of") {
        value["metadata"]["labels"]["kubernetes.io/service-name"] = json!(service);
    }
    (kind, value)
}

/// Returns the result for the objects of a case.
fn outcome(objects: &str) -> Vec<String> {
    let mut texts = vec![NODE.to_owned()];
    for line in objects.lines() {
        match texts.last_mut() {
            Some(last) if line.starts_with(' ') => last.push_str(line),
            _ => texts.push(line.to_owned()),
        }
    }
    let (mut index, mut lines) = (Index::new(), Vec::new());
    for (kind, value) in texts.iter().map(|text| object(text)) {
        match Object::parse(kind, value) {
            Ok(parsed) => {
                lines.extend(parsed.problems.iter().map(|problem| format!("problem: {problem}")));
                index.handle(Event::Applied(parsed.object));
            }
            Err(error) => lines.push(format!("error: {error}")),
        }
    }
    let desired = Desired::from_index(&index, Name::new("node-a"));
    lines.extend(desired.ports().flat_map(port));
    for service in desired.unserved_services() {
        lines.extend(desired.unserved(service).iter().map(|unserved| format!("{service}: {unserved}")));
    }
    lines
}

fn port(port: &ServicePort) -> Vec<String> {
    let cluster_ip = port.cluster_ip.map(|ip| SocketAddr::new(ip, port.port.get()).to_string());
    let mut head = format!("{:?} {}", port.name, cluster_ip.unwrap_or_else(|| format!("-:{}", port.port)));
    let mut add = |word: &str, value: String| {
        if !value.is_empty() {
            head.push_str(&format!(" {word}={value}"));
        }
    };
    add("node", port.node_port.map(|p| p.to_string()).unwrap_or_default());
    add("ext", joined(&port.external_ips));
    add("lb", joined(&port.load_balancer_vips));
    let ranges = port.source_ranges.as_deref();
    add("ranges", ranges.map_or_else(String::new, |r| if r.is_empty() { "none".into() } else { joined(r) }));
    add("affinity", port.affinity.map(|seconds| seconds.to_string()).unwrap_or_default());
    add("scheduler", port.scheduler.map(|scheduler| scheduler.to_string()).unwrap_or_default());
    let policies = [
        (port.internal_policy.is_local(), " internal-local"),
        (port.external_policy.is_local(), " external-local"),
    ];
    head.extend(policies.into_iter().filter(|(set, _)| *set).map(|(_, word)| word));
    head.extend(port.health_check_node_port.map(|p| format!(" health={p}")));
    let usable = if port.endpoints.has_usable() { "" } else { ", none usable" };
    let endpoints = port.endpoints.serving().iter().map(|endpoint| format!("  {endpoint:?}"));
    let total = format!("  total {}{usable}", port.endpoints.total());
    std::iter::once(head).chain(endpoints).chain([total]).collect()
}

fn joined<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

#[test]
fn cases_have_the_expected_result() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/desired");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    let mut wrong = Vec::new();
    let mut cases = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for case in text.split("== ").skip(1) {
            let (name, rest) = case.split_once('\n').unwrap();
            let (objects, expected) = rest.split_once("=>\n").unwrap_or_else(|| panic!("{name}: no =>"));
            let expected: Vec<&str> = expected.lines().filter(|line| !line.is_empty()).collect();
            let found = outcome(objects);
            cases += 1;
            if found != expected {
                let file = file.file_name().unwrap().display().to_string();
                wrong.push(format!(
                    "{file}: {name}\nexpected\n{}\nfound\n{}\n",
                    expected.join("\n"),
                    found.join("\n")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {cases} cases:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases >= 50, "{cases} cases: were the files found?");
}
