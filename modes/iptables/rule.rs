//! A builder of rules in the form in which `iptables-save` prints them.
//!
//! The same form serves for restores, golden files and comparison with the kernel: the text read back is the text
//! written.

use std::fmt::{Display, Write};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use portcullis_cluster::{Family, Protocol};

use crate::detect_local::LocalMatch;

/// A rule being built. Conditions may be given in any order; matches keep theirs.
pub(crate) struct Rule<'a> {
    out: &'a mut String,
    matches: String,
    source: Option<(bool, IpNet)>,
    destination: Option<(bool, IpNet)>,
    interface: Option<(bool, String)>,
    protocol: Option<Protocol>,
}

/// Returns the pattern for all interfaces with a prefix, in the syntax of iptables.
fn any_interface(prefix: &str) -> String {
    format!("{prefix}+")
}

impl<'a> Rule<'a> {
    /// Returns a rule whose text is appended to `out`, without `-A CHAIN`.
    pub(crate) fn new(out: &'a mut String) -> Self {
        Rule { out, matches: String::new(), source: None, destination: None, interface: None, protocol: None }
    }

    pub(crate) fn source(mut self, net: impl Into<IpNet>) -> Self {
        self.source = Some((true, net.into()));
        self
    }

    pub(crate) fn not_source(mut self, net: impl Into<IpNet>) -> Self {
        self.source = Some((false, net.into()));
        self
    }

    pub(crate) fn destination(mut self, net: impl Into<IpNet>) -> Self {
        self.destination = Some((true, net.into()));
        self
    }

    pub(crate) fn not_destination(mut self, net: impl Into<IpNet>) -> Self {
        self.destination = Some((false, net.into()));
        self
    }

    pub(crate) fn interface(mut self, name: &str) -> Self {
        self.interface = Some((true, name.to_owned()));
        self
    }

    pub(crate) fn not_interface(mut self, name: &str) -> Self {
        self.interface = Some((false, name.to_owned()));
        self
    }

    /// Matches traffic of this node's pods.
    pub(crate) fn local(self, local: &LocalMatch) -> Self {
        match local {
            LocalMatch::Source(net) => self.source(*net),
            LocalMatch::Interface(name) => self.interface(name),
            LocalMatch::InterfacePrefix(prefix) => self.interface(&any_interface(prefix)),
        }
    }

    /// Matches all other traffic.
    pub(crate) fn not_local(self, local: &LocalMatch) -> Self {
        match local {
            LocalMatch::Source(net) => self.not_source(*net),
            LocalMatch::Interface(name) => self.not_interface(name),
            LocalMatch::InterfacePrefix(prefix) => self.not_interface(&any_interface(prefix)),
        }
    }

    pub(crate) fn comment(self, text: impl Display) -> Self {
        self.matching(format_args!(" -m comment --comment {}", Quoted(&text)))
    }

    /// Matches the protocol, with a protocol match without conditions.
    pub(crate) fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = Some(protocol);
        self.matching(format_args!(" -m {protocol}"))
    }

    /// Matches the protocol and a destination port.
    pub(crate) fn port(mut self, protocol: Protocol, port: impl Display) -> Self {
        self.protocol = Some(protocol);
        self.matching(format_args!(" -m {protocol} --dport {port}"))
    }

    /// Matches the protocol alone.
    pub(crate) fn of_protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// Matches packets whose addresses or ports, as named by `which`, are in a set.
    pub(crate) fn in_set(self, set: impl Display, which: &str) -> Self {
        self.matching(format_args!(" -m set --match-set {set} {which}"))
    }

    /// Matches packets to an IPVS virtual server.
    pub(crate) fn virtual_server(self, protocol: Protocol, address: IpAddr, port: u16) -> Self {
        let protocol = protocol.number();
        self.matching(format_args!(" -m ipvs --vproto {protocol} --vaddr {address} --vport {port}"))
    }

    /// Matches packets that did not arrive through a bridge port.
    pub(crate) fn not_from_bridge(self) -> Self {
        self.matching(format_args!(" -m physdev ! --physdev-is-in"))
    }

    pub(crate) fn ct_state(self, states: &str) -> Self {
        self.matching(format_args!(" -m conntrack --ctstate {states}"))
    }

    pub(crate) fn not_ct_state(self, states: &str) -> Self {
        self.matching(format_args!(" -m conntrack ! --ctstate {states}"))
    }

    pub(crate) fn mark(self, mark: u32) -> Self {
        self.matching(format_args!(" -m mark --mark {mark:#x}/{mark:#x}"))
    }

    pub(crate) fn not_mark(self, mark: u32) -> Self {
        self.matching(format_args!(" -m mark ! --mark {mark:#x}/{mark:#x}"))
    }

    pub(crate) fn source_is_local(self) -> Self {
        self.matching(format_args!(" -m addrtype --src-type LOCAL"))
    }

    pub(crate) fn source_is_not_local(self) -> Self {
        self.matching(format_args!(" -m addrtype ! --src-type LOCAL"))
    }

    pub(crate) fn destination_is_local(self) -> Self {
        self.matching(format_args!(" -m addrtype --dst-type LOCAL"))
    }

    pub(crate) fn nfacct(self, name: &str) -> Self {
        // The tool prints two spaces here.
        self.matching(format_args!(" -m nfacct --nfacct-name  {name}"))
    }

    /// Matches one of `n` packets at random.
    pub(crate) fn one_in(self, n: usize) -> Self {
        self.matching(format_args!(" -m statistic --mode random --probability {:.11}", probability(n)))
    }

    /// Matches if the source was added to a list within the last `seconds`, and removes older entries.
    pub(crate) fn seen_recently(self, list: impl Display, seconds: u32, family: Family) -> Self {
        let mask = host_mask(family);
        self.matching(format_args!(
            " -m recent --rcheck --seconds {seconds} --reap --name {list} --mask {mask} --rsource"
        ))
    }

    /// Adds the source to a list.
    pub(crate) fn record_source(self, list: impl Display, family: Family) -> Self {
        self.matching(format_args!(" -m recent --set --name {list} --mask {} --rsource", host_mask(family)))
    }

    pub(crate) fn jump(self, target: impl Display) {
        self.write(Some(format_args!("{target}")));
    }

    pub(crate) fn dnat(self, to: SocketAddr) {
        self.write(Some(format_args!("DNAT --to-destination {to}")));
    }

    pub(crate) fn reject(self, family: Family) {
        let with = match family {
            Family::V4 => "icmp-port-unreachable",
            Family::V6 => "icmp6-port-unreachable",
        };
        self.write(Some(format_args!("REJECT --reject-with {with}")));
    }

    pub(crate) fn set_mark(self, mark: u32) {
        self.write(Some(format_args!("MARK --set-xmark {mark:#x}/{mark:#x}")));
    }

    pub(crate) fn flip_mark(self, mark: u32) {
        self.write(Some(format_args!("MARK --set-xmark {mark:#x}/0x0")));
    }

    pub(crate) fn masquerade(self, random_fully: bool) {
        let option = if random_fully { " --random-fully" } else { "" };
        self.write(Some(format_args!("MASQUERADE{option}")));
    }

    /// Writes a rule without a target, which only counts packets and carries a comment.
    pub(crate) fn no_target(self) {
        self.write(None);
    }

    /// Appends a complete rule.
    pub(crate) fn text(self, rule: &str) {
        self.out.push_str(rule);
    }

    fn matching(mut self, text: std::fmt::Arguments<'_>) -> Self {
        put(&mut self.matches, text);
        self
    }

    fn write(self, target: Option<std::fmt::Arguments<'_>>) {
        let out = self.out;
        let from = out.len();
        let not = |positive: bool| if positive { "" } else { " !" };
        if let Some((positive, net)) = &self.source {
            put(out, format_args!("{} -s {net}", not(*positive)));
        }
        if let Some((positive, net)) = &self.destination {
            put(out, format_args!("{} -d {net}", not(*positive)));
        }
        if let Some((positive, name)) = &self.interface {
            put(out, format_args!("{} -i {name}", not(*positive)));
        }
        if let Some(protocol) = self.protocol {
            put(out, format_args!(" -p {protocol}"));
        }
        out.push_str(&self.matches);
        if let Some(target) = target {
            put(out, format_args!(" -j {target}"));
        }
        // Each part begins with a space; a rule does not.
        if out.len() > from {
            out.remove(from);
        }
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string does not fail");
}

/// Returns a probability as the kernel stores it, in parts of 2^31, from the ten digits that kube-proxy gives.
fn probability(n: usize) -> f64 {
    const PARTS: f64 = 2_147_483_648.0;
    let given = (1e10 / n as f64).round() / 1e10;
    (given * PARTS).round() / PARTS
}

fn host_mask(family: Family) -> &'static str {
    match family {
        Family::V4 => "255.255.255.255",
        Family::V6 => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    }
}

/// Returns the network of a single address.
pub(crate) fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

/// A text as the tool quotes it: in quotes unless all its characters are harmless.
struct Quoted<'a, T>(&'a T);

impl<T: Display> Display for Quoted<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.0.to_string();
        let harmless = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !text.is_empty() && text.bytes().all(harmless) {
            return f.write_str(&text);
        }
        f.write_char('"')?;
        for c in text.chars() {
            if matches!(c, '"' | '\\' | '\'') {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_equal_those_that_the_tool_prints() {
        for (n, text) in
            [(2, "0.50000000000"), (3, "0.33333333349"), (5, "0.20000000019"), (7, "0.14285714272")]
        {
            assert_eq!(format!("{:.11}", probability(n)), text, "1/{n}");
        }
    }

    #[test]
    fn text_is_quoted_as_the_tool_quotes_it() {
        for (text, quoted) in [("a-b_1", "a-b_1"), ("a b", "\"a b\""), ("a\"b", "\"a\\\"b\""), ("", "\"\"")] {
            assert_eq!(Quoted(&text).to_string(), quoted);
        }
    }
}
