//! iptables-restore and nft in nodes; namespaces and processes of the host.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::Write;
use std::process::{Command, Stdio};

use portcullis_lab::{Lab, Vantage};

/// Runs `iptables-restore` on a node.
pub(crate) fn restore(lab: &Lab, node: &str, rules: &str) {
    let netns = lab.netns(&Vantage::node(node)).unwrap();
    let mut child = netns.command("iptables-restore").stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "iptables-restore rejected:\n{rules}");
}

/// Returns the network namespaces whose names begin with a prefix.
pub(crate) fn namespaces(prefix: &str) -> Vec<String> {
    let output = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect()
}

/// Returns true if a process exists and is not a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}

/// Runs `nft -f` on a node.
pub(crate) fn nft(lab: &Lab, node: &str, rules: &str) {
    let netns = lab.netns(&Vantage::node(node)).unwrap();
    let mut child = netns.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "nft rejected:\n{rules}");
}
