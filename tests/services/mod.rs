//! The recorded cluster states in `fixtures/services`, and comparison of rules with them.
//!
//! A case is a folder: `config.yaml` (a KubeProxyConfiguration), `host.yaml` (the node's interfaces),
//! `state-N.yaml` (the cluster, step by step) and, for each mode and step, what kube-proxy v1.36.2 programs.
//! `case.yaml` lists its modes.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

pub mod ipvs;

use std::fs;
use std::path::{Path, PathBuf};

use portcullis::config::{Config, Invocation, ProxyMode};
use portcullis::host_file::HostFile;
use portcullis::source::read_manifests;
use portcullis::{host, node};
use portcullis_cluster::desired::DirtyServices;
use portcullis_cluster::{Event, Family, Index, Kind, Name, Object};
use portcullis_modes::iptables::IptablesFeatures;
use portcullis_modes::{NodeFacts, Options};
use serde_json::Value;

/// The folder of the cases.
pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/services");

/// One case, in one of its modes.
pub struct Case {
    pub name: String,
    pub folder: PathBuf,
    pub mode: ProxyMode,
    pub config: Config,
    pub host: HostFile,
}

/// Returns the names of all cases of a mode, without reading the cases: a case has recordings for each of its modes.
pub fn case_names(mode: ProxyMode) -> Vec<String> {
    let folders = fs::read_dir(FOLDER).expect("the fixtures are there").map(|entry| entry.expect("readable"));
    let of_mode = folders.filter(|folder| folder.path().join(mode.name()).is_dir());
    let mut names: Vec<String> =
        of_mode.map(|folder| folder.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    assert!(names.len() > 70, "only {} cases for {}", names.len(), mode.name());
    names
}

/// Returns all cases of a mode, by name.
pub fn cases(mode: ProxyMode) -> Vec<Case> {
    let mut folders: Vec<PathBuf> =
        fs::read_dir(FOLDER).expect("the fixtures are there").map(|e| e.expect("readable").path()).collect();
    folders.sort();
    let of_mode = folders.iter().filter(|folder| is_for(folder, mode));
    let cases: Vec<Case> = of_mode.map(|folder| Case::read(folder, mode)).collect();
    assert!(cases.len() > 70, "only {} cases for {}", cases.len(), mode.name());
    cases
}

/// Returns true if a case is for a mode.
fn is_for(folder: &Path, mode: ProxyMode) -> bool {
    let text = fs::read_to_string(folder.join("case.yaml")).expect("a case says what it is");
    let case: Value = serde_saphyr::from_str(&text).expect("it is YAML");
    case["modes"].as_array().expect("it names its modes").iter().any(|name| name == mode.name())
}

impl Case {
    pub fn named(name: &str, mode: ProxyMode) -> Case {
        Case::read(&Path::new(FOLDER).join(name), mode)
    }

    fn read(folder: &Path, mode: ProxyMode) -> Case {
        let file = folder.join("config.yaml");
        let arguments = [
            "portcullis".into(),
            format!("--mode={}", mode.name()),
            "--manifests=/unused".into(),
            "--config".into(),
        ];
        let arguments = arguments.into_iter().map(Into::into).chain([file.into_os_string()]);
        let invocation = Invocation::from_arguments(arguments, |path| fs::read_to_string(path));
        let config = invocation.expect("a command line").config;
        Case {
            name: folder.file_name().expect("it has a name").to_string_lossy().into_owned(),
            folder: folder.to_owned(),
            mode,
            config: config.unwrap_or_else(|errors| panic!("{}: {errors}", folder.display())),
            host: HostFile::read(&folder.join("host.yaml")).expect("a host file"),
        }
    }

    /// Returns the files of its states, in order.
    pub fn states(&self) -> Vec<PathBuf> {
        (1..).map(|n| self.folder.join(format!("state-{n}.yaml"))).take_while(|path| path.exists()).collect()
    }

    pub fn node(&self) -> Name {
        node::name(&self.config).expect("the cases name their node")
    }

    /// Returns the folder of a step's recordings; steps count from 1.
    pub fn recording(&self, step: usize) -> PathBuf {
        self.folder.join(format!("{}/{step}", self.mode.name()))
    }

    /// Returns the text of a recording of a step; steps count from 1.
    pub fn recorded(&self, step: usize, file: &str) -> String {
        let path = self.recording(step).join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub fn recorded_rules(&self, step: usize, family: Family) -> String {
        let file = if family == Family::V4 { "v4.save" } else { "v6.save" };
        normalised(&self.recorded(step, file))
    }

    /// Returns the options and node facts in a state.
    pub fn facts(&self, index: &Index) -> (Options, NodeFacts) {
        let known = index.node(&self.node());
        let options = node::options(&self.config, known);
        let addresses: Vec<_> = self.host.addresses().collect();
        let host = NodeFacts {
            addresses: host::addresses_in_rules(self.config.mode, &options, &addresses),
            node_ips: node::primary_ips(&self.config, known, |_| None),
            iptables: IptablesFeatures { random_fully: true, nfacct: true },
            service_cidrs: node::service_cidrs(self.config.mode, index),
            ..NodeFacts::default()
        };
        (options, host)
    }
}

/// Returns the objects of a state.
pub fn objects(state: &Path) -> Vec<Object> {
    let manifests = read_manifests(state).expect("the state is readable");
    assert!(manifests.errors.is_empty(), "{:?}", manifests.errors);
    manifests.objects
}

/// Changes an index to a state; objects that the state does not contain are deleted. Returns the changes that affect Services.
pub fn bring(index: &mut Index, state: &Path) -> DirtyServices {
    let mut dirty = DirtyServices::default();
    let started = Kind::ALL.into_iter().map(Event::ListStarted);
    let applied = objects(state).into_iter().map(Event::Applied);
    let listed = Kind::ALL.into_iter().map(Event::Listed);
    started.chain(applied).chain(listed).for_each(|event| dirty.extend(index.handle(event)));
    dirty
}

/// A chain of IPVS mode whose rules have no comments; kube-proxy writes them in the order of a hash map.
const UNORDERED_WITHOUT_COMMENTS: &str = "KUBE-IPVS-OUT-FILTER";

/// Chains in which kube-proxy writes Services in the order of a hash map.
const UNORDERED: [&str; 4] =
    ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL"];

/// Returns a dump without parts that vary: comments, counters, the order of tables, and the order of Services (not of a
/// Service's rules) in shared chains.
pub fn normalised(dump: &str) -> String {
    let mut tables: Vec<(String, Vec<String>)> = Vec::new();
    for line in dump.lines().filter(|line| !line.starts_with('#') && *line != "COMMIT") {
        if line.starts_with('*') {
            tables.push((line.to_owned(), Vec::new()));
            continue;
        }
        let table = &mut tables.last_mut().expect("a dump begins with a table").1;
        match line.strip_prefix(':').and_then(|rest| rest.split_once('[')) {
            Some((chain, _)) => table.push(format!(":{chain}[0:0]")),
            None => table.push(line.trim_end().to_owned()),
        }
    }
    tables.sort();
    let text = tables.into_iter().map(|(name, lines)| format!("{name}\n{}\n", in_order(lines).join("\n")));
    text.collect()
}

fn in_order(lines: Vec<String>) -> Vec<String> {
    let (mut ordered, mut run): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for line in lines {
        let continues = run.last().is_none_or(|last| chain(last) == chain(&line));
        if !continues || !is_of_a_service(&line) {
            run.sort_by_cached_key(|line| service_port(line));
            ordered.append(&mut run);
        }
        if is_of_a_service(&line) { run.push(line) } else { ordered.push(line) }
    }
    run.sort_by_cached_key(|line| service_port(line));
    ordered.append(&mut run);
    ordered
}

/// Returns the chain of a rule.
fn chain(line: &str) -> &str {
    line.split(' ').nth(1).unwrap_or_default()
}

/// Returns true if the rule's position relative to other Services is arbitrary.
fn is_of_a_service(line: &str) -> bool {
    let chain = chain(line);
    line.starts_with("-A ")
        && (chain == UNORDERED_WITHOUT_COMMENTS || UNORDERED.contains(&chain) && line.contains("--dport"))
}

/// Returns the sort key of a rule: the Service port at the beginning of its comment, or the whole rule if it has none.
fn service_port(line: &str) -> String {
    if chain(line) == UNORDERED_WITHOUT_COMMENTS {
        return line.to_owned();
    }
    let comment = line.split_once("--comment \"").map_or("", |(_, rest)| rest);
    comment.split([' ', '"']).next().unwrap_or_default().to_owned()
}

/// Fails with the differences between two dumps.
pub fn assert_same(what: &str, wanted: &str, found: &str) {
    if wanted != found {
        let diff = similar::TextDiff::from_lines(wanted, found);
        panic!("{what}\n{}", diff.unified_diff().header("recorded", "ours"));
    }
}
