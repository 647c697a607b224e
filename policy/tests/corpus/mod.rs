//! Reader of the test cases in `fixtures/network-policy` and `fixtures/cluster-network-policy`, shared by several test
//! binaries with `#[path]`.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use portcullis_cluster::address::parse_ip;
use portcullis_cluster::{Family, Protocol, manifest};
use serde::Deserialize;
use serde_json::Value;

/// The folders of cases.
pub const NETWORK_POLICY: &str = "network-policy";
pub const CLUSTER_NETWORK_POLICY: &str = "cluster-network-policy";

/// A folder of cases.
pub struct Corpus {
    /// The objects at the start of each case.
    pub cluster: Vec<Value>,
    /// The cases, by name.
    pub cases: Vec<Case>,
}

#[derive(Deserialize)]
pub struct Case {
    pub name: String,
    pub source: String,
    pub tags: Vec<String>,
    pub steps: Vec<Step>,
}

#[derive(Deserialize)]
pub struct Step {
    #[serde(default)]
    pub note: String,
    /// Objects to create or replace, before the deletions.
    #[serde(default)]
    pub apply: Vec<Value>,
    #[serde(default)]
    pub delete: Vec<Reference>,
    pub expect: Expect,
    #[serde(default)]
    pub flows: Vec<Flow>,
}

/// An object to delete.
#[derive(Deserialize)]
pub struct Reference {
    pub kind: String,
    #[serde(default)]
    pub namespace: String,
    pub name: String,
}

#[derive(Deserialize)]
pub struct Expect {
    /// Pods as destinations, in the order of the characters.
    pub columns: Vec<String>,
    ipv4: Table,
    ipv6: Option<Table>,
}

/// By port (`80/tcp`), by source (`namespace/name`): a character for each destination.
type Table = BTreeMap<String, BTreeMap<String, String>>;

/// Expected verdict about a new connection between two pods.
pub struct Cell<'a> {
    pub family: Family,
    pub from: &'a str,
    pub to: &'a str,
    pub port: u16,
    pub protocol: Protocol,
    /// `.` allowed; `I`, `E`, `B` denied by ingress, egress, both; `-` not applicable.
    pub expected: char,
}

impl Expect {
    /// Returns all cells of both families.
    pub fn cells(&self) -> Vec<Cell<'_>> {
        let mut cells = Vec::new();
        for family in Family::BOTH {
            let table = match (family, &self.ipv6) {
                (Family::V6, Some(table)) => table,
                _ => &self.ipv4,
            };
            for (name, rows) in table {
                let (port, protocol) = port(name);
                for (from, row) in rows {
                    assert_eq!(
                        row.chars().count(),
                        self.columns.len(),
                        "{name} {from}: a character a column"
                    );
                    let cells_of_row = row.chars().zip(&self.columns);
                    cells.extend(cells_of_row.map(|(expected, to)| Cell {
                        family,
                        from,
                        to,
                        port,
                        protocol,
                        expected,
                    }));
                }
            }
        }
        cells
    }
}

/// A connection that the tables of pods cannot express.
#[derive(Deserialize)]
pub struct Flow {
    from: String,
    to: String,
    port: String,
    #[serde(default)]
    family: Option<String>,
    /// The source address of the packet when policies are evaluated.
    #[serde(default)]
    pub masqueraded_as: Option<String>,
    /// Not new: replies in this connection.
    #[serde(default)]
    pub reply_to: Option<String>,
    /// Not new: opened in this step, counted from 1, and still open.
    #[serde(default)]
    pub opened_in_step: Option<usize>,
    /// The path by which the client enters the cluster.
    #[serde(default)]
    pub via: Option<String>,
    pub verdict: Verdict,
    pub basis: String,
    #[serde(default)]
    pub note: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Allow,
    Deny,
    /// Depends on the endpoint.
    Mixed,
    /// Both verdicts are correct.
    Either,
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Pod {
        namespace: String,
        name: String,
    },
    /// A process on the node, by its internal address.
    Node(String),
    External(IpAddr),
    Service {
        namespace: String,
        name: String,
    },
}

impl End {
    /// Parses an end.
    pub fn parse(text: &str) -> End {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            ["node", name] => End::Node(name.to_owned()),
            ["external", address] => End::External(parse_ip(address).expect("an address")),
            ["service", namespace, name] => {
                End::Service { namespace: namespace.to_owned(), name: name.to_owned() }
            }
            [namespace, name] => End::Pod { namespace: namespace.to_owned(), name: name.to_owned() },
            _ => panic!("invalid end of a flow: {text}"),
        }
    }
}

impl Flow {
    pub fn from(&self) -> End {
        End::parse(&self.from)
    }

    pub fn to(&self) -> End {
        End::parse(&self.to)
    }

    pub fn port(&self) -> (u16, Protocol) {
        port(&self.port)
    }

    pub fn family(&self) -> Family {
        match self.family.as_deref() {
            None | Some("ipv4") => Family::V4,
            Some("ipv6") => Family::V6,
            Some(other) => panic!("invalid family: {other}"),
        }
    }

    /// Returns true for a new connection, false for packets of an existing one.
    pub fn is_new(&self) -> bool {
        self.reply_to.is_none() && self.opened_in_step.is_none()
    }

    /// Returns `from → to port family`, for messages.
    pub fn describe(&self) -> String {
        format!("{} → {} {} {}", self.from, self.to, self.port, self.family())
    }
}

/// Parses `80/tcp`.
fn port(text: &str) -> (u16, Protocol) {
    let (number, protocol) = text.split_once('/').expect("a port and a protocol");
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => panic!("invalid protocol: {other}"),
    };
    (number.parse().expect("a port's number"), protocol)
}

/// Reads a folder of cases.
pub fn read(folder: &str) -> Corpus {
    let cases = case_names(folder);
    Corpus { cluster: cluster(folder), cases: cases.iter().map(|name| case(folder, name)).collect() }
}

/// Returns the names of a folder's cases in order, without reading the cases.
pub fn case_names(folder: &str) -> Vec<String> {
    let files = fs::read_dir(fixtures().join(folder).join("cases")).expect("cases");
    let names = files.map(|file| file.expect("readable").path());
    let mut names: Vec<String> =
        names.map(|file| file.file_stem().expect("a file").to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Reads a case.
pub fn case(folder: &str, name: &str) -> Case {
    let file = fixtures().join(folder).join("cases").join(format!("{name}.yaml"));
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Reads the objects at the start of each case.
pub fn cluster(folder: &str) -> Vec<Value> {
    let file = fixtures().join(folder).join("cluster.yaml");
    let text = fs::read_to_string(file).expect("the cluster at the start of the cases");
    manifest::parse("cluster.yaml", &text).map(|d| d.expect("well formed").value).collect()
}

/// Returns the workspace's folder of fixtures, from whichever package this is compiled into.
fn fixtures() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut candidates = package.ancestors().map(|folder| folder.join("fixtures"));
    candidates.find(|folder| folder.join(NETWORK_POLICY).exists()).expect("the fixtures are there")
}
