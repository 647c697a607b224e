//! What all rules of a family have in common: options, and facts of the host.

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_cluster::Family;
use portcullis_netlink as netlink;
use portcullis_netlink::nf_tables::{Comparison, DataType, Expression, Field, Meta, Register, Rule, Value};

use crate::detect_local::LocalMatch;
use crate::node_facts::NodeFacts;
use crate::node_port_addresses::NodePortScope;
use crate::options::Options;

/// Options and facts, for one family.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) family: Family,
    pub(super) masquerade_all: bool,
    /// The mark that asks for masquerading.
    pub(super) mark: u32,
    pub(super) local: Option<LocalMatch>,
    pub(super) node_ports: NodePortScope,
    /// Node ports are served on loopback addresses too.
    pub(super) localhost: bool,
    /// Packets to loopback addresses from other hosts are dropped by a rule. Without `route_localnet`, which IPv6 does not
    /// have, the kernel drops them itself.
    pub(super) guards_loopback: bool,
    pub(super) node_ip: Option<IpAddr>,
    pub(super) service_cidrs: Vec<IpNet>,
}

impl Settings {
    pub(super) fn new(family: Family, options: &Options, host: &NodeFacts) -> Self {
        let mut node_ports = options.node_port_scope(family, host);
        let localhost = options.serves_localhost_in_nftables();
        if let NodePortScope::Addresses(addresses) = &mut node_ports {
            addresses.retain(|ip| !ip.is_loopback());
        }
        let cidrs = host.service_cidrs.iter().filter(|cidr| Family::from_net(cidr) == family);
        Settings {
            family,
            masquerade_all: options.masquerade_all,
            mark: options.masquerade_mark(),
            local: options.detect_local.matching(family),
            node_ports,
            localhost,
            guards_loopback: localhost || (family == Family::V4 && host.route_localnet),
            node_ip: host.node_ip(family),
            service_cidrs: cidrs.copied().collect(),
        }
    }

    /// The family as netlink has it.
    pub(super) fn kernel_family(&self) -> netlink::Family {
        kernel_family(self.family)
    }

    /// The type of its addresses.
    pub(super) fn address(&self) -> DataType {
        DataType::address(self.kernel_family())
    }

    pub(super) fn source(&self) -> Field {
        Field::Source(self.kernel_family())
    }

    pub(super) fn destination(&self) -> Field {
        Field::Destination(self.kernel_family())
    }

    /// The loopback block of the family, 127.0.0.0/8 or ::1.
    pub(super) fn loopback(&self) -> IpNet {
        super::loopback_guard::loopback(self.family)
    }

    /// A rule for what comes from pods of the cluster (or, negated, from elsewhere); `None` where they cannot be told
    /// apart.
    pub(super) fn of_pods(&self, rule: Rule, negated: bool) -> Option<Rule> {
        Some(match self.local.as_ref()? {
            LocalMatch::Source(net) => within(rule, self.source(), *net, negated),
            LocalMatch::Interface(name) => came_by(rule, name, negated),
            LocalMatch::InterfacePrefix(prefix) => came_by_prefix(rule, prefix, negated),
        })
    }
}

/// The family as netlink has it.
pub(super) fn kernel_family(family: Family) -> netlink::Family {
    match family {
        Family::V4 => netlink::Family::V4,
        Family::V6 => netlink::Family::V6,
    }
}

fn comparison(negated: bool) -> Comparison {
    if negated { Comparison::NotEqual } else { Comparison::Equal }
}

/// Matches packets that arrived, or did not, on the interface with this name.
pub(super) fn came_by(rule: Rule, name: &str, negated: bool) -> Rule {
    let mut bytes = [0; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    compare_interface(rule, Value::new(&bytes), negated)
}

/// Matches packets that arrived, or did not, on an interface whose name has this prefix.
fn came_by_prefix(rule: Rule, prefix: &str, negated: bool) -> Rule {
    // The kernel compares as many bytes as the value has.
    compare_interface(rule, Value::new(prefix.as_bytes()), negated)
}

fn compare_interface(rule: Rule, with: Value, negated: bool) -> Rule {
    let (from, op) = (Register::FIRST, comparison(negated));
    rule.load(&[Field::Meta(Meta::IifName)], from).push(Expression::Compare { from, op, with })
}

/// The address is, or is not, in the block.
pub(super) fn within(rule: Rule, field: Field, net: IpNet, negated: bool) -> Rule {
    let (register, op, network) = (Register::FIRST, comparison(negated), Value::from(net.network()));
    let rule = rule.load(&[field], register);
    let rule = match net.prefix_len() == net.max_prefix_len() {
        true => rule,
        false => rule.push(Expression::Bitwise {
            register,
            length: network.bytes().len() as u32,
            mask: Value::from(net.netmask()),
            xor: Value::new(&vec![0; network.bytes().len()]),
        }),
    };
    rule.push(Expression::Compare { from: register, op, with: network })
}
