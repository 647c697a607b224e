//! `portcullis migrate` from recorded objects of kube-proxy, which the real tools write: no objects of the old mode remain, and
//! objects of other programs are unchanged.

use std::io::Write;
use std::process::{Command, Stdio};

use portcullis::config::ProxyMode;
use portcullis_machines::uml;
use serde_json::Value;

use crate::mode_changes::{restore, without_counters};
use crate::recorded_objects::output;
use crate::services::Case;
use crate::{namespace, node};

/// Cases with every kind of address, both families, and session affinity.
const CASES: [&str; 4] = ["mixed", "external-ips", "dual-stack", "affinity-nodeport-lb"];

/// User-mode Linux has one processor, on which tools start slowly.
const CASES_BY_IPVS: [&str; 2] = ["mixed", "dual-stack"];

/// Rules of other programs in the tables of a proxy.
const FOREIGN_RULES: &str = "\
*filter
:OTHERS - [0:0]
-A INPUT -p tcp -m tcp --dport 22 -j OTHERS
-A FORWARD -j OTHERS
-A OTHERS -m comment --comment \"not KUBE-SERVICES\" -j RETURN
COMMIT
*nat
:HOST-PORTS - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j HOST-PORTS
-A POSTROUTING -s 172.17.0.0/16 -o eth0 -j MASQUERADE
-A HOST-PORTS -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 80
COMMIT
";

const FOREIGN_TABLE: &str = "table inet others {\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\t\ttcp dport 22 accept\n\t}\n}\n";

pub(crate) fn from_kube_proxys_iptables_to_nftables() {
    for flavour in ["nft", "legacy"] {
        CASES.iter().for_each(|name| namespace::inside(|| from_iptables(name, flavour, ProxyMode::Nftables)));
    }
}

pub(crate) fn from_kube_proxys_nftables_to_iptables() {
    for name in CASES {
        let case = Case::named(name, ProxyMode::Nftables);
        let recording = case.folder.join("nftables/1/ruleset.nft");
        if !recording.exists() {
            println!("{name}: kube-proxy's nftables mode was not recorded");
            continue;
        }
        namespace::inside(|| {
            node::set_up(&case);
            feed("nft", &["-f", "-"], FOREIGN_TABLE);
            feed("nft", &["-f", "-"], &std::fs::read_to_string(&recording).expect("it is readable"));
            migrate(&case, ProxyMode::Iptables, "nftables");
            assert_eq!(output(&["nft", "list", "table", "ip", "kube-proxy"]), "", "{name}");
            assert_eq!(output(&["nft", "list", "table", "ip6", "kube-proxy"]), "", "{name}");
            assert_eq!(output(&["nft", "list", "table", "inet", "others"]), FOREIGN_TABLE, "{name}");
        });
    }
}

pub(crate) fn from_kube_proxys_iptables_to_ipvs() {
    uml::inside(|| {
        CASES_BY_IPVS
            .iter()
            .for_each(|name| namespace::inside(|| from_iptables(name, "legacy", ProxyMode::Ipvs)));
    });
}

pub(crate) fn from_kube_proxys_ipvs_to_iptables() {
    uml::inside(|| CASES_BY_IPVS.iter().for_each(|name| namespace::inside(|| from_ipvs(name))));
}

fn from_iptables(name: &str, flavour: &str, to: ProxyMode) {
    let case = Case::named(name, ProxyMode::Iptables);
    node::set_up(&case);
    let tools = [format!("iptables-{flavour}"), format!("ip6tables-{flavour}")];
    restore(&format!("{}-restore", tools[0]), FOREIGN_RULES);
    let before = saved(&tools[0]);
    for (tool, file) in tools.iter().zip(["v4.save", "v6.save"]) {
        let recorded = without_counters(&case.recorded(1, file));
        feed(&format!("{tool}-restore"), &["--noflush"], &recorded);
    }
    migrate(&case, to, "iptables");
    if to == ProxyMode::Nftables {
        assert_eq!(saved(&tools[0]), before, "{name}, {flavour}: only foreign rules are left");
        assert!(!saved(&tools[1]).contains("KUBE-"), "{name}, {flavour}");
    }
    assert_foreign_rules_exist(&tools[0]);
}

fn from_ipvs(name: &str) {
    let case = Case::named(name, ProxyMode::Ipvs);
    node::set_up(&case);
    restore("iptables-restore", FOREIGN_RULES);
    feed("ipset", &["restore"], &case.recorded(1, "ipset.save"));
    for (tool, file) in [("iptables-restore", "v4.save"), ("ip6tables-restore", "v6.save")] {
        feed(tool, &["--noflush"], &without_counters(&case.recorded(1, file)));
    }
    node::run("ip link add kube-ipvs0 type dummy");
    for address in case.recorded(1, "addrs").lines().filter_map(|line| line.split(' ').nth(1)) {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        node::run(&format!("ip address add {address} dev kube-ipvs0{nodad}"));
    }
    feed("ipvsadm", &["-R"], &case.recorded(1, "ipvsadm.save"));
    // A virtual server of another program: no set has it, and the interface lacks its address.
    node::run("ipvsadm -A -t 198.51.100.99:4444 -s rr");
    migrate(&case, ProxyMode::Iptables, "ipvs");
    let left = output(&["ipvsadm", "-Sn"]);
    assert_eq!(left.trim(), "-A -t 198.51.100.99:4444 -s rr", "{name}");
    assert_eq!(output(&["ipset", "list", "-n"]), "", "{name}");
    assert!(!output(&["ip", "-o", "link"]).contains("kube-ipvs0"), "{name}");
    assert_foreign_rules_exist("iptables");
}

/// Runs a dry run, which changes nothing, the migration, and another dry run, which finds nothing to remove.
fn migrate(case: &Case, to: ProxyMode, from: &str) {
    let before = portcullis(case, to, &[]);
    assert_eq!(modes(&before), [from], "{}: {before:#}", case.name);
    assert_ne!(before["removed"], Value::Array(Vec::new()), "{}: {before:#}", case.name);
    let done = portcullis(case, to, &["--apply"]);
    assert_eq!(modes(&done), [from], "{}: a dry run changes nothing", case.name);
    assert_eq!(done["applied"]["left"], Value::Array(Vec::new()), "{}: {done:#}", case.name);
    let after = portcullis(case, to, &[]);
    assert_eq!(modes(&after), [to.name()], "{}: {after:#}", case.name);
    assert_eq!(after["removed"], Value::Array(Vec::new()), "{}: {after:#}", case.name);
}

fn portcullis(case: &Case, to: ProxyMode, arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(["migrate", "-o", "json", "--to", to.name()]).args(arguments);
    command.arg("--config").arg(case.folder.join("config.yaml"));
    command.arg("--manifests").arg(case.folder.join("state-1.yaml")).stderr(Stdio::inherit());
    let printed = command.output().expect("the binary is built").stdout;
    let text = String::from_utf8(printed).expect("it prints text");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}: {text}", case.name))
}

fn modes(report: &Value) -> Vec<&str> {
    let serving = report["serving"].as_array().expect("a list");
    serving.iter().map(|now| now["mode"].as_str().expect("a name")).collect()
}

/// Returns all rules and chains of a flavour, without counters and empty tables.
fn saved(tool: &str) -> String {
    let text = output(&[&format!("{tool}-save")]);
    let lines = text.lines().filter(|line| line.starts_with("-A") || line.contains(" - ["));
    lines.map(|line| line.split(" [").next().unwrap_or(line).to_owned() + "\n").collect()
}

fn assert_foreign_rules_exist(tool: &str) {
    let saved = saved(tool);
    let rules = FOREIGN_RULES.lines().filter(|line| line.starts_with("-A"));
    rules.for_each(|rule| assert!(saved.contains(rule), "{tool}: {rule} in\n{saved}"));
}

fn feed(tool: &str, arguments: &[&str], text: &str) {
    let mut child =
        Command::new(tool).args(arguments).stdin(Stdio::piped()).spawn().expect("the tool is installed");
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it is our child").success(), "{tool} rejected\n{text}");
}
