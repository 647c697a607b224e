//! The cases in `fixtures/network-policy` and `fixtures/cluster-network-policy`: read once, for the tests of
//! this crate and, by `#[path]`, for those that send real packets.
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
    /// The objects with which each case begins.
    pub cluster: Vec<Value>,
    /// By name.
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
    /// Objects to create or replace, before those to delete.
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

/// What is expected of a new connection from one pod to another.
pub struct Cell<'a> {
    pub family: Family,
    pub from: &'a str,
    pub to: &'a str,
    pub port: u16,
    pub protocol: Protocol,
    /// `.` allowed, `I`, `E`, `B` denied by ingress, egress, both, `-` does not apply.
    pub expected: char,
}

impl Expect {
    /// All cells of both families.
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

/// A connection that a table of pods cannot say.
#[derive(Deserialize)]
pub struct Flow {
    from: String,
    to: String,
    port: String,
    #[serde(default)]
    family: Option<String>,
    /// The source that the packet bears when policy sees it.
    #[serde(default)]
    pub masqueraded_as: Option<String>,
    /// It is not new: answers of this connection.
    #[serde(default)]
    pub reply_to: Option<String>,
    /// It is not new: made in this step, counted from 1, and still open.
    #[serde(default)]
    pub opened_in_step: Option<usize>,
    /// How the client got in.
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
    /// It depends on the endpoint.
    Mixed,
    /// Both are right.
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
    /// Reads an end.
    pub fn read(text: &str) -> End {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            ["node", name] => End::Node(name.to_owned()),
            ["external", address] => End::External(parse_ip(address).expect("an address")),
            ["service", namespace, name] => {
                End::Service { namespace: namespace.to_owned(), name: name.to_owned() }
            }
            [namespace, name] => End::Pod { namespace: namespace.to_owned(), name: name.to_owned() },
            _ => panic!("{text} is no end of a flow"),
        }
    }
}

impl Flow {
    pub fn from(&self) -> End {
        End::read(&self.from)
    }

    pub fn to(&self) -> End {
        End::read(&self.to)
    }

    pub fn port(&self) -> (u16, Protocol) {
        port(&self.port)
    }

    pub fn family(&self) -> Family {
        match self.family.as_deref() {
            None | Some("ipv4") => Family::V4,
            Some("ipv6") => Family::V6,
            Some(other) => panic!("{other} is no family"),
        }
    }

    /// Whether it is a connection that begins, and not packets of one that is there.
    pub fn is_new(&self) -> bool {
        self.reply_to.is_none() && self.opened_in_step.is_none()
    }

    /// `from → to port`, for messages.
    pub fn describe(&self) -> String {
        format!("{} → {} {} {}", self.from, self.to, self.port, self.family())
    }
}

/// `80/tcp`, read.
fn port(text: &str) -> (u16, Protocol) {
    let (number, protocol) = text.split_once('/').expect("a port and a protocol");
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => panic!("{other} is no protocol"),
    };
    (number.parse().expect("a port's number"), protocol)
}

/// Reads a folder of cases.
pub fn read(folder: &str) -> Corpus {
    let folder = fixtures().join(folder);
    let text = fs::read_to_string(folder.join("cluster.yaml")).expect("where the cases begin");
    let cluster = manifest::parse("cluster.yaml", &text).map(|d| d.expect("well formed").value).collect();
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder.join("cases")).expect("cases").map(|e| e.expect("readable").path()).collect();
    files.sort();
    let cases = files.iter().map(|file| {
        let text = fs::read_to_string(file).expect("a case");
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    });
    Corpus { cluster, cases: cases.collect() }
}

/// The fixtures of the workspace, of whichever package this is compiled into.
fn fixtures() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut candidates = package.ancestors().map(|folder| folder.join("fixtures"));
    candidates.find(|folder| folder.join(NETWORK_POLICY).exists()).expect("the fixtures are there")
}
