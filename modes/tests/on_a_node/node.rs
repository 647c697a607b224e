//! A node in a recorded state, in a network namespace of its own.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Event, Family, Index, Name, Object, manifest};
use portcullis_modes::Mode;
use portcullis_modes::iptables::{
    Flavour, IptablesFeatures, IptablesKernel, IptablesProxier, RuleSet, Tools,
};
use portcullis_modes::{DetectLocal, NodeFacts, Options};

use crate::namespace::run;

/// Runs a command with this input.
pub(crate) fn feed(line: &str, input: &str) -> String {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    let command = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    assert!(status.success(), "{line}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

pub(crate) const FLAVOURS: [Flavour; 2] = [Flavour::Nft, Flavour::Legacy];

/// Returns the name of the tool, for example `iptables-legacy`.
pub(crate) fn tool(flavour: Flavour, family: Family) -> String {
    let base = if family == Family::V4 { "iptables" } else { "ip6tables" };
    let flavour = if flavour == Flavour::Nft { "nft" } else { "legacy" };
    format!("{base}-{flavour}")
}

/// Returns all rules of a flavour and of both families, without volatile parts.
pub(crate) fn saved(flavour: Flavour) -> String {
    let mut text = String::new();
    for family in Family::BOTH {
        for table in ["filter", "mangle", "nat"] {
            let saved = run(&format!("{}-save -t {table}", tool(flavour, family)));
            for line in saved.lines().filter(|line| !line.starts_with('#')) {
                text.push_str(line.split(" [").next().unwrap());
                text.push('\n');
            }
        }
    }
    text
}

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/services").join(name)
}

/// Returns the desired state of a node in a recorded state.
pub(crate) fn desired(name: &str) -> Desired {
    Desired::from_index(&index(name), Name::new("node-a"))
}

/// Returns the objects of a recorded state.
pub(crate) fn index(name: &str) -> Index {
    let path = case(name).join("state-1.yaml");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut index = Index::new();
    for document in manifest::parse("state-1.yaml", &text) {
        let document = document.unwrap();
        if let Some(kind) = document.kind {
            index.handle(Event::Applied(Object::parse(kind, document.value).unwrap().object));
        }
    }
    index
}

/// A node in a recorded state.
pub(crate) struct Node {
    pub(crate) flavour: Flavour,
    pub(crate) desired: Desired,
    pub(crate) options: Options,
    pub(crate) host: NodeFacts,
}

impl Node {
    pub(crate) fn new(flavour: Flavour, state: &str) -> Node {
        let pods = ["10.244.0.0/16", "fd00:10:244::/48"].map(|net| net.parse().unwrap());
        let options = Options { detect_local: DetectLocal::Cidrs(Box::new(pods)), ..Options::default() };
        let host = NodeFacts {
            node_ips: ["192.168.10.11", "fd00:192:168:10::11"].map(|ip| ip.parse().unwrap()).into(),
            iptables: IptablesFeatures { random_fully: true, nfacct: false },
            ..NodeFacts::default()
        };
        Node { flavour, desired: desired(state), options, host }
    }

    pub(crate) fn kernel(&self, family: Family) -> Box<dyn IptablesKernel> {
        Tools::of_flavour(self.flavour).unwrap().kernel(family)
    }

    /// Writes the rules.
    pub(crate) fn sync(&self) {
        let kernels = Family::BOTH.map(|family| (family, self.kernel(family)));
        let mut proxier = IptablesProxier::new(self.options.clone(), self.host.clone(), kernels);
        for report in proxier.sync(&self.desired, &[]) {
            assert_eq!((report.error, report.isolated), (None, vec![]), "{:?}", report.family);
        }
    }

    pub(crate) fn desired_rules(&self, family: Family) -> RuleSet {
        RuleSet::render(&self.desired, family, &self.options, &self.host)
    }

    pub(crate) fn rules_in_kernel(&self, family: Family) -> RuleSet {
        RuleSet::read(&*self.kernel(family)).unwrap()
    }
}
