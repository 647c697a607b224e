//! The table of host ports: its sets, chains and rules, which do not depend on pods (pure).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use portcullis_netlink::Family;
use portcullis_netlink::nf_tables::{
    BaseChain, CT_STATUS_DNAT, Chain, ChainKind, Comparison, Ct, CtState, DataType, DesiredTable, Expression,
    Field, Hook, Meta, Register, Rule, Set, SetSpec, TableFamily, Value, Verdict,
};

/// The name of the table, in the family `inet`.
pub const TABLE: &str = "portcullis-host-ports";

/// The priority of destination NAT: 10 after that of Services (`dstnat`), so that these have precedence.
const DNAT_PRIORITY: i32 = -90;
/// `srcnat`.
const MASQUERADE_PRIORITY: i32 = 100;

/// The chain that looks up host ports.
const HOST_PORTS: &str = "host-ports";

/// A set or map of the table; there is one for each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SetKind {
    /// Mappings with a host IP: host IP, protocol and port to the pod's address and port.
    HostIpPorts,
    /// Mappings for all addresses of the node: protocol and port to the pod's address and port.
    AllIpPorts,
    /// Pods with host ports, as pairs of the same address: connections of a pod to itself.
    Hairpin,
    /// Addresses of Services on an interface of this node (IPVS mode).
    ServiceIps,
}

impl SetKind {
    pub(super) const ALL: [SetKind; 4] =
        [SetKind::HostIpPorts, SetKind::AllIpPorts, SetKind::Hairpin, SetKind::ServiceIps];

    /// Returns the name of the set of one family.
    pub(super) fn name(self, family: Family) -> Arc<str> {
        let suffix = match family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        let name = match self {
            SetKind::HostIpPorts => "host-ip-ports",
            SetKind::AllIpPorts => "all-ip-ports",
            SetKind::Hairpin => "hairpin",
            SetKind::ServiceIps => "service-ips",
        };
        format!("{name}-{suffix}").into()
    }

    /// Returns the specification of the set of one family.
    pub(super) fn spec(self, family: Family) -> SetSpec {
        let address = DataType::address(family);
        let (protocol, port) = (DataType::InetProto, DataType::InetService);
        match self {
            SetKind::HostIpPorts => SetSpec::new(&[address, protocol, port])
                .with_data(&[address, port])
                .with_comment("host ports of one address of the node"),
            SetKind::AllIpPorts => SetSpec::new(&[protocol, port])
                .with_data(&[address, port])
                .with_comment("host ports of all addresses of the node"),
            SetKind::Hairpin => {
                SetSpec::new(&[address, address]).with_comment("connections of a pod to its own host port")
            }
            SetKind::ServiceIps => SetSpec::new(&[address]).with_comment("Services' addresses on kube-ipvs0"),
        }
    }
}

/// Returns the table without elements.
pub(super) fn empty_table() -> DesiredTable {
    let mut table = DesiredTable::new(TableFamily::Inet, TABLE);
    table.set_comment("host ports of pods, by portcullis");
    for family in Family::ALL {
        for kind in SetKind::ALL {
            table.put_set(&kind.name(family), Set::new(kind.spec(family)));
        }
    }
    let base = |kind, hook, priority, rules: Vec<Rule>| Chain {
        base: Some(BaseChain { kind, hook, priority }),
        ..Chain::new(rules)
    };
    let of_both = |rules: fn(Family) -> Vec<Rule>| Family::ALL.into_iter().flat_map(rules).collect();
    let (filter, nat) = (ChainKind::Filter, ChainKind::Nat);
    let chains = [
        (HOST_PORTS, Chain::new(of_both(host_ports))),
        ("nat-prerouting", base(nat, Hook::Prerouting, DNAT_PRIORITY, of_both(prerouting))),
        ("nat-output", base(nat, Hook::Output, DNAT_PRIORITY, of_both(output))),
        ("nat-postrouting", base(nat, Hook::Postrouting, MASQUERADE_PRIORITY, of_both(postrouting))),
        ("filter-input", base(filter, Hook::Input, 0, of_both(input))),
    ];
    for (name, chain) in chains {
        table.put_chain(&name.into(), chain);
    }
    table
}

fn host_ports(family: Family) -> Vec<Rule> {
    let lookup = |key: &[Field], kind: SetKind| {
        let address = Register::FIRST;
        Rule::new().family(family).map(key, kind.name(family), address).push(Expression::Dnat {
            family,
            address,
            port: Some(address.after(DataType::address(family).length())),
        })
    };
    let (destination, port) = (Field::Destination(family), Field::DestinationPort);
    vec![
        lookup(&[destination, Field::PROTOCOL, port], SetKind::HostIpPorts),
        lookup(&[Field::PROTOCOL, port], SetKind::AllIpPorts),
    ]
}

/// Destination NAT precedes the check for packets to loopback addresses from other hosts, so the rule must exclude these.
fn prerouting(family: Family) -> Vec<Rule> {
    let outside = Rule::new().family(family);
    vec![to_node(loopback(outside, Field::Destination(family), family, Comparison::NotEqual), family)]
}

fn output(family: Family) -> Vec<Rule> {
    vec![to_node(Rule::new().family(family), family)]
}

/// Appends the jump for packets to addresses of the node that are not those of Services.
fn to_node(rule: Rule, family: Family) -> Rule {
    let local = rule.to_local().is_not_in(&[Field::Destination(family)], SetKind::ServiceIps.name(family));
    local.then(Verdict::jump(HOST_PORTS))
}

fn postrouting(family: Family) -> Vec<Rule> {
    let masquerade = || Expression::Masquerade { random_fully: true };
    let translated = || Rule::new().family(family).any_bit(Field::Ct(Ct::Status), CT_STATUS_DNAT);
    let (source, destination) = (Field::Source(family), Field::Destination(family));
    let hairpin = translated().is_in(&[source, destination], SetKind::Hairpin.name(family));
    let from_loopback = not_on_loopback(translated(), Meta::OifName);
    let from_loopback = loopback(from_loopback, source, family, Comparison::Equal);
    vec![
        hairpin.push(masquerade()).with_comment("a pod to its own host port"),
        from_loopback.push(masquerade()).with_comment("this node by a loopback address"),
    ]
}

fn input(family: Family) -> Vec<Rule> {
    let rule = not_on_loopback(Rule::new().family(family), Meta::IifName);
    let rule = loopback(rule, Field::Destination(family), family, Comparison::Equal)
        .no_bit(Field::Ct(Ct::State), CtState::ESTABLISHED | CtState::RELATED)
        .no_bit(Field::Ct(Ct::Status), CT_STATUS_DNAT)
        .then(Verdict::Drop);
    vec![rule.with_comment("packets from pods and other hosts to loopback addresses")]
}

/// Appends a match of the loopback block, 127.0.0.0/8 or ::1, or of all other addresses.
fn loopback(rule: Rule, field: Field, family: Family, op: Comparison) -> Rule {
    match family {
        Family::V4 => {
            let (register, block) = (Register::FIRST, IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)));
            rule.load(&[field], register)
                .push(Expression::Bitwise {
                    register,
                    length: 4,
                    mask: Value::new(&[255, 0, 0, 0]),
                    xor: Value::new(&[0; 4]),
                })
                .push(Expression::Compare { from: register, op, with: block.into() })
        }
        Family::V6 => rule.compare(field, op, IpAddr::V6(Ipv6Addr::LOCALHOST)),
    }
}

/// Appends a match of interfaces other than `lo`.
fn not_on_loopback(rule: Rule, interface: Meta) -> Rule {
    let mut name = [0; 16];
    name[..2].copy_from_slice(b"lo");
    rule.compare(Field::Meta(interface), Comparison::NotEqual, Value::new(&name))
}
