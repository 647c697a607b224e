//! Changes of the mode: the new mode serves, and no objects of the old one remain, be it ours or kube-proxy's.

use std::io::Write;
use std::process::{Command, Stdio};

use portcullis::config::ProxyMode;
use portcullis_machines::uml;

use crate::follow::follow_first_state;
use crate::recorded_objects::{
    ADDRESSES, INHERITED_IPV4_RULES, INHERITED_IPV6_RULES, NOTHING_ELSE, RecordedObjects, SETS, TABLES,
    VIRTUAL_SERVERS, output,
};
use crate::services::Case;
use crate::{namespace, node};

/// Cases with every kind of address and both families.
const CASES: [&str; 3] = ["mixed", "external-ips", "dual-stack"];

const IPVS: [RecordedObjects; 5] =
    [VIRTUAL_SERVERS, SETS, ADDRESSES, INHERITED_IPV4_RULES, INHERITED_IPV6_RULES];
const IPTABLES: [RecordedObjects; 2] = [INHERITED_IPV4_RULES, INHERITED_IPV6_RULES];

pub(crate) fn from_kube_proxys_iptables_to_ipvs_and_back_and_again() {
    uml::inside(|| CASES.iter().for_each(|name| namespace::inside(|| change(name))));
}

pub(crate) fn from_kube_proxys_iptables_to_nftables_and_back() {
    CASES.iter().for_each(|name| namespace::inside(|| change_to_nftables(name)));
}

fn change_to_nftables(name: &str) {
    let [iptables, nftables] = [ProxyMode::Iptables, ProxyMode::Nftables].map(|mode| Case::named(name, mode));
    node::set_up(&iptables);
    restore("iptables-restore", &without_counters(&iptables.recorded(1, "v4.save")));
    restore("ip6tables-restore", &without_counters(&iptables.recorded(1, "v6.save")));
    follow_first_state(&nftables, &[TABLES, NOTHING_ELSE]);
    follow_first_state(&iptables, &IPTABLES);
    assert!(!output(&["nft", "list", "tables"]).contains("portcullis"), "{name}: tables are left");
}

fn change(name: &str) {
    let [iptables, ipvs] = [ProxyMode::Iptables, ProxyMode::Ipvs].map(|mode| Case::named(name, mode));
    node::set_up(&iptables);
    restore("iptables-restore", &without_counters(&iptables.recorded(1, "v4.save")));
    restore("ip6tables-restore", &without_counters(&iptables.recorded(1, "v6.save")));
    follow_first_state(&ipvs, &IPVS);
    follow_first_state(&iptables, &IPTABLES);
    assert_eq!(output(&["ipvsadm", "-Sn"]), "", "{name}: virtual servers are left");
    assert_eq!(output(&["ipset", "list", "-n"]), "", "{name}: sets are left");
    assert!(!output(&["ip", "-o", "link"]).contains("kube-ipvs0"), "{name}: the dummy interface is left");
    follow_first_state(&ipvs, &IPVS);
}

/// Removes nfacct matches, whose counters do not exist yet.
pub(crate) fn without_counters(rules: &str) -> String {
    let words = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.windows(2).position(|pair| pair == ["-m", "nfacct"]);
        let (before, after) = at.map_or((&words[..], &[][..]), |at| (&words[..at], &words[at + 4..]));
        [before, after].concat().join(" ")
    };
    rules
        .lines()
        .map(|line| if line.contains("nfacct") { words(line) } else { line.to_owned() } + "\n")
        .collect()
}

pub(crate) fn restore(tool: &str, rules: &str) {
    let mut child = Command::new(tool).stdin(Stdio::piped()).spawn().expect("iptables is installed");
    child.stdin.take().expect("it is piped").write_all(rules.as_bytes()).expect("it reads its rules");
    assert!(child.wait().expect("it is our child").success(), "{tool} rejected\n{rules}");
}
