//! Cases of the policy fixtures: steps with their expected tables and flows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use portcullis_lab::{EchoPort, Family, LabObject, ObjectRef, Protocol};
use serde::Deserialize;
use serde_json::Value;

/// A file of the fixtures.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
}

/// Objects to apply and delete, and the expected results.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Step {
    #[serde(default)]
    apply: Vec<Value>,
    #[serde(default)]
    delete: Vec<Gone>,
    pub(crate) expect: Expect,
    #[serde(default)]
    pub(crate) flows: Vec<Flow>,
}

#[derive(Debug, Clone, Deserialize)]
struct Gone {
    kind: String,
    #[serde(default)]
    namespace: String,
    name: String,
}

/// Truth tables by `80/tcp` and source, with a letter for each destination.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Expect {
    pub(crate) columns: Vec<String>,
    ipv4: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default)]
    ipv6: BTreeMap<String, BTreeMap<String, String>>,
}

/// A connection that the tables of pods cannot express.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Flow {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) port: String,
    #[serde(default)]
    pub(crate) family: Option<String>,
    pub(crate) verdict: String,
    #[serde(default)]
    pub(crate) reply_to: Option<String>,
    #[serde(default)]
    pub(crate) opened_in_step: Option<usize>,
    #[serde(default)]
    pub(crate) masqueraded_as: Option<String>,
    #[serde(default)]
    pub(crate) via: Option<String>,
}

impl Case {
    /// Parses a case.
    pub(crate) fn parse(text: &str) -> Self {
        let options = serde_saphyr::options! { strict_booleans: true };
        serde_saphyr::from_str_with_options(text, options).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// Reads the cases of a folder of `fixtures/`, by name.
    pub(crate) fn all_of(corpus: &str) -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(corpus).join("cases");
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().map(|file| Self::parse(&fs::read_to_string(file).unwrap())).collect()
    }

    /// Returns all ports of tables and flows that the lab can probe.
    pub(crate) fn ports(&self) -> impl Iterator<Item = EchoPort> {
        self.steps.iter().flat_map(|step| {
            let flows = step.flows.iter().filter_map(|flow| port(&flow.port));
            step.expect.ports().into_iter().chain(flows)
        })
    }
}

impl Step {
    /// Returns the objects to create or replace.
    pub(crate) fn objects(&self) -> Vec<LabObject> {
        self.apply.iter().map(|object| LabObject::from_value(object.clone()).unwrap()).collect()
    }

    /// Returns the objects to delete afterwards.
    pub(crate) fn deletions(&self) -> Vec<ObjectRef> {
        self.delete.iter().map(|gone| ObjectRef::new(&gone.kind, &gone.namespace, &gone.name)).collect()
    }
}

impl Expect {
    /// Returns the ports of the tables that the lab can probe.
    pub(crate) fn ports(&self) -> Vec<EchoPort> {
        self.ipv4.keys().filter_map(|text| port(text)).collect()
    }

    /// Returns true if a new connection between two pods is allowed; `None` if the table has no verdict.
    pub(crate) fn allows(&self, from: &str, to: &str, at: EchoPort, family: Family) -> Option<bool> {
        let name = format!("{}/{}", at.port, at.protocol.to_string().to_lowercase());
        let letter = |tables: &BTreeMap<String, BTreeMap<String, String>>| {
            let row = tables.get(&name)?.get(from)?;
            row.chars().nth(self.columns.iter().position(|column| column == to)?)
        };
        let own = if family == Family::V6 { letter(&self.ipv6) } else { None };
        match own.or_else(|| letter(&self.ipv4))? {
            '.' => Some(true),
            'I' | 'E' | 'B' => Some(false),
            '-' => None,
            other => panic!("invalid letter of a table: {other:?}"),
        }
    }
}

impl Flow {
    /// Returns the family of the connection.
    pub(crate) fn family(&self) -> Family {
        if self.family.as_deref() == Some("ipv6") { Family::V6 } else { Family::V4 }
    }
}

/// Parses `80/tcp`; `None` for a protocol that this kernel has no sockets for.
pub(crate) fn port(text: &str) -> Option<EchoPort> {
    let (number, protocol) = text.split_once('/').unwrap();
    let protocol = Protocol::parse(&protocol.to_uppercase()).filter(|protocol| protocol.is_supported())?;
    Some(EchoPort { port: number.parse().unwrap(), protocol })
}
