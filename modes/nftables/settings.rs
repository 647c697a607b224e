//! The options and node facts that rendering needs, and the matches that depend on them.

use ipnet::IpNet;
use portcullis_cluster::Family;
use portcullis_cluster::desired::RoutingContext;
use portcullis_netlink as netlink;
use portcullis_netlink::nf_tables::{Comparison, DataType, Expression, Field, Meta, Register, Rule, Value};

use crate::detect_local::LocalMatch;
use crate::node_facts::NodeFacts;
use crate::node_port_addresses::NodePortScope;
use crate::options::Options;
use crate::proxy_mode::ProxyMode;

/// The options and node facts for one family.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) family: Family,
    /// The bit of the packet mark that requests masquerading.
    pub(super) mark: u32,
    /// The match for packets from local pods.
    pub(super) local: Option<LocalMatch>,
    pub(super) node_ports: NodePortScope,
    /// Node ports are also served on loopback addresses.
    pub(super) localhost: bool,
    /// A rule drops packets from other hosts to loopback addresses. Without `route_localnet`, which IPv6 does not have,
    /// the kernel drops them.
    pub(super) guards_loopback: bool,
    pub(super) routing: RoutingContext,
    pub(super) service_cidrs: Vec<IpNet>,
    /// The traffic of each Service is counted.
    pub(super) counts_services: bool,
}

impl Settings {
    pub(super) fn new(family: Family, options: &Options, node: &NodeFacts) -> Self {
        let mut node_ports = options.node_port_scope(family, node);
        let localhost = options.serves_localhost_in_nftables();
        if let NodePortScope::Addresses(addresses) = &mut node_ports {
            addresses.retain(|ip| !ip.is_loopback());
        }
        let cidrs = node.service_cidrs.iter().filter(|cidr| Family::from_net(cidr) == family);
        Settings {
            family,
            mark: options.masquerade_mark(),
            local: options.detect_local.matching(family),
            node_ports,
            localhost,
            guards_loopback: localhost || (family == Family::V4 && node.route_localnet),
            routing: ProxyMode::Nftables.routing_context(family, options, node),
            service_cidrs: cidrs.copied().collect(),
            counts_services: options.service_counters,
        }
    }

    /// Returns the family as a type of the netlink crate.
    pub(super) fn kernel_family(&self) -> netlink::Family {
        kernel_family(self.family)
    }

    /// Returns the type of addresses of the family.
    pub(super) fn address(&self) -> DataType {
        DataType::address(self.kernel_family())
    }

    pub(super) fn source(&self) -> Field {
        Field::Source(self.kernel_family())
    }

    pub(super) fn destination(&self) -> Field {
        Field::Destination(self.kernel_family())
    }

    /// Returns the loopback block of the family: 127.0.0.0/8 or ::1.
    pub(super) fn loopback(&self) -> IpNet {
        super::loopback_guard::loopback(self.family)
    }

    /// Adds a match for packets from local pods, or from other sources if `negated`. Returns `None` if
    /// `--detect-local-mode` does not allow to detect them.
    pub(super) fn match_pods(&self, rule: Rule, negated: bool) -> Option<Rule> {
        Some(match self.local.as_ref()? {
            LocalMatch::Source(net) => match_block(rule, self.source(), *net, negated),
            LocalMatch::Interface(name) => match_input(rule, name, negated),
            LocalMatch::InterfacePrefix(prefix) => match_input_prefix(rule, prefix, negated),
        })
    }
}

/// Returns the family as a type of the netlink crate.
pub(super) fn kernel_family(family: Family) -> netlink::Family {
    match family {
        Family::V4 => netlink::Family::V4,
        Family::V6 => netlink::Family::V6,
    }
}

fn comparison(negated: bool) -> Comparison {
    if negated { Comparison::NotEqual } else { Comparison::Equal }
}

/// Adds a match for packets that arrived on this interface, or on another if `negated`.
pub(super) fn match_input(rule: Rule, name: &str, negated: bool) -> Rule {
    let mut bytes = [0; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    compare_interface(rule, Value::new(&bytes), negated)
}

/// Adds a match for packets that arrived on an interface whose name has this prefix, or on another if `negated`.
fn match_input_prefix(rule: Rule, prefix: &str, negated: bool) -> Rule {
    // The kernel compares as many bytes as the value has.
    compare_interface(rule, Value::new(prefix.as_bytes()), negated)
}

fn compare_interface(rule: Rule, with: Value, negated: bool) -> Rule {
    let (from, op) = (Register::FIRST, comparison(negated));
    rule.load(&[Field::Meta(Meta::IifName)], from).push(Expression::Compare { from, op, with })
}

/// Adds a match for an address in the block, or outside of it if `negated`.
pub(super) fn match_block(rule: Rule, field: Field, net: IpNet, negated: bool) -> Rule {
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
