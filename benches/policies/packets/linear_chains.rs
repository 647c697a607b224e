//! The policies as chains of iptables that are evaluated one after another, with the structure that kube-router documents: a
//! chain for the pod jumps to a chain for each policy; a rule that matches marks the packet, and the pod's chain rejects
//! packets without the mark. Each rule's peers are an ipset.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::Stdio;

use portcullis_lab::NetNs;

use super::cluster;

/// The mark of packets that a policy allows.
const ALLOWED: &str = "0x10000/0x10000";

/// Adds the chains of this number of policies for the server.
pub(super) fn add(netns: &NetNs, server: Ipv4Addr, clients: &[Ipv4Addr], count: usize) {
    let (mut sets, mut chains, mut jumps, mut rules) =
        (String::new(), String::new(), String::new(), String::new());
    for n in 0..count {
        let policy = Policy { sets: &mut sets, rules: &mut rules, n };
        policy.write(server, clients, n + 1 == count);
        writeln!(chains, ":POLICY-{n} - [0:0]").expect("strings have room");
        writeln!(jumps, "-A POD-FW -j POLICY-{n}").expect("strings have room");
    }
    run(netns, &["ipset", "restore"], &sets);
    let text = format!(
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POLICIES - [0:0]\n:POD-FW - [0:0]\n{chains}\
         -A FORWARD -j POLICIES\n-A POLICIES -d {server}/32 -j POD-FW\n\
         -A POD-FW -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A POD-FW -d {server}/32 -m addrtype --src-type LOCAL -j ACCEPT\n\
         {jumps}-A POD-FW -m mark ! --mark {ALLOWED} -j REJECT\n-A POD-FW -j MARK --set-xmark 0x0/0x10000\n\
         {rules}COMMIT\n"
    );
    run(netns, &["iptables-nft-restore"], &text);
}

/// Removes all chains and sets, if there are any.
pub(super) fn remove(netns: &NetNs) {
    run(netns, &["nft", "-f", "-"], "add table ip filter\ndelete table ip filter\n");
    run(netns, &["ipset", "destroy"], "");
}

/// Output for one policy of [`cluster::policies`].
struct Policy<'a> {
    sets: &'a mut String,
    rules: &'a mut String,
    n: usize,
}

impl Policy<'_> {
    fn write(mut self, server: Ipv4Addr, clients: &[Ipv4Addr], is_last: bool) {
        self.set("pods", "hash:ip", [server.to_string()]);
        self.set("from-0", "hash:ip", cluster::others_of_policy(self.n).map(cluster::other_address));
        self.rule("from-0", "");
        let except = format!("{} nomatch", cluster::except(self.n));
        self.set("from-1", "hash:net", ["192.0.2.0/24".to_owned(), except]);
        self.rule("from-1", "-p tcp --dport 80");
        self.set("from-2", "hash:ip", clients.iter().map(ToString::to_string));
        self.rule("from-2", "-p tcp --dport 9000:9100");
        self.rule("from-2", "-p tcp --dport 443");
        // No pod is a peer of the next rule, so it has no chain rule.
        if is_last {
            self.set("from-4", "hash:ip", clients.iter().map(ToString::to_string));
            self.rule("from-4", "");
        }
    }

    fn set(&mut self, name: &str, kind: &str, elements: impl IntoIterator<Item = String>) {
        let n = self.n;
        writeln!(self.sets, "create {name}-{n} {kind} family inet").expect("strings have room");
        for element in elements {
            writeln!(self.sets, "add {name}-{n} {element}").expect("strings have room");
        }
    }

    /// Adds the rules that mark the packets from a set, and return from the chain.
    fn rule(&mut self, from: &str, ports: &str) {
        let n = self.n;
        let matches = format!(
            "-A POLICY-{n} -m set --match-set {from}-{n} src -m set --match-set pods-{n} dst {ports}"
        );
        write!(
            self.rules,
            "{matches} -j MARK --set-xmark {ALLOWED}\n{matches} -m mark --mark {ALLOWED} -j RETURN\n"
        )
        .expect("strings have room");
    }
}

/// Runs a command in a namespace with this input.
fn run(netns: &NetNs, words: &[&str], input: &str) {
    let mut command = netns.command(words[0]);
    command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}; is it installed?", words[0]));
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("it reads its input");
    drop(stdin);
    let status = child.wait().expect("it is our child");
    assert!(status.success(), "{words:?}: {status}");
}
