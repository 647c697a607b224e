//! In which order things are written, so that no packet meets half a Service.

use std::collections::BTreeSet;
use std::net::IpAddr;

use portcullis_cluster::Family;
use portcullis_modes::iptables::Table;
use portcullis_modes::ipvs::{IpSet, ServerChange};
use portcullis_netlink::ip_vs::VirtualServer;
use portcullis_netlink::ipset::SetEntry;

use crate::cluster::Drawn;
use crate::kernel::Call;
use crate::node::{Node, all_well};

/// The sets that let packets to a Service's address and port pass.
const ACCESS: [IpSet; 4] = [IpSet::ClusterIp, IpSet::ExternalIp, IpSet::ExternalIpLocal, IpSet::LoadBalancer];

/// What a log of calls changes, as far as its order matters.
pub struct Held {
    servers: BTreeSet<VirtualServer>,
    entries: BTreeSet<(IpSet, Family, SetEntry)>,
    bound: BTreeSet<IpAddr>,
}

impl Held {
    pub fn of(node: &Node) -> Held {
        let state = node.kernel.state();
        let mut entries = BTreeSet::new();
        for family in Family::BOTH {
            for set in IpSet::ALL {
                entries.extend(state.entries(set, family).map(|entry| (set, family, *entry)));
            }
        }
        Held {
            servers: state.servers.keys().copied().collect(),
            entries,
            bound: state.link.iter().flatten().copied().collect(),
        }
    }

    fn has(&self, set: IpSet, entry: SetEntry) -> bool {
        let ip = match entry {
            SetEntry::Ip(ip) | SetEntry::IpPort { ip, .. } => ip,
            _ => unreachable!("only these are asked for"),
        };
        self.entries.contains(&(set, Family::from_address(ip), entry))
    }

    fn lets_pass(&self, key: &VirtualServer) -> bool {
        let VirtualServer { protocol, address, port } = *key;
        ACCESS.into_iter().any(|set| self.has(set, SetEntry::IpPort { ip: address, protocol, port }))
    }

    /// Whether packets to any port of an address pass.
    fn lets_any_pass(&self, address: IpAddr) -> bool {
        self.entries.iter().any(|(set, _, entry)| {
            ACCESS.contains(set) && matches!(entry, SetEntry::IpPort { ip, .. } if *ip == address)
        })
    }

    fn serves(&self, address: IpAddr) -> bool {
        self.servers.iter().any(|key| key.address == address)
    }
}

/// Fails if one of the calls came before its time.
pub fn check(mut held: Held, node: &Node) {
    let own = &node.host.addresses;
    let log = node.kernel.state().log.clone();
    let mut bound_now = BTreeSet::new();
    for call in &log {
        match call {
            Call::Server(change) => {
                let key = *change.server();
                // What becomes the node's own is no longer filtered, as soon as all is written.
                let ours = held.has(IpSet::IpvsIps, SetEntry::Ip(key.address)) && !own.contains(&key.address);
                match change {
                    ServerChange::AddServer(..) => {
                        assert!(
                            !ours || held.lets_pass(&key),
                            "{key:?} stands before packets may pass\n{log:#?}"
                        );
                        assert!(
                            !bound_now.contains(&key.address),
                            "{key:?} stands after its address\n{log:#?}"
                        );
                        held.servers.insert(key);
                    }
                    ServerChange::AddRealServer(..) => {
                        assert!(!bound_now.contains(&key.address), "{change:?} after its address\n{log:#?}");
                    }
                    ServerChange::DeleteServer(_) => {
                        assert!(!held.lets_pass(&key), "{key:?} goes while packets still pass\n{log:#?}");
                        held.servers.remove(&key);
                    }
                    _ => {}
                }
            }
            Call::Entered(set, family, entry) => {
                held.entries.insert((*set, *family, *entry));
            }
            Call::Left(IpSet::IpvsIps, family, SetEntry::Ip(ip)) => {
                assert!(
                    !held.bound.contains(ip),
                    "{ip} is unknown to the filter while it is bound\n{log:#?}"
                );
                held.entries.remove(&(IpSet::IpvsIps, *family, SetEntry::Ip(*ip)));
            }
            Call::Left(set, family, entry) => {
                held.entries.remove(&(*set, *family, *entry));
            }
            Call::Bound(address) => {
                assert!(held.has(IpSet::IpvsIps, SetEntry::Ip(*address)), "{address} is no secret\n{log:#?}");
                assert!(
                    held.lets_any_pass(*address),
                    "{address} is bound before a packet may pass\n{log:#?}"
                );
                assert!(held.serves(*address), "{address} is bound before anything serves\n{log:#?}");
                held.bound.insert(*address);
                bound_now.insert(*address);
            }
            Call::Unbound(address) => {
                let gone = !held.serves(*address) && !held.lets_any_pass(*address);
                // What becomes the node's own serves on.
                assert!(gone || own.contains(address), "{address} goes too soon\n{log:#?}");
                held.bound.remove(address);
            }
            Call::MadeSet(..) | Call::Restored(..) => {}
        }
    }
}

fn letters(node: &Node) -> String {
    let state = node.kernel.state();
    let letters = state.log.iter().map(|call| match call {
        Call::Server(ServerChange::AddServer(..)) => "+server".to_owned(),
        Call::Server(ServerChange::AddRealServer(..)) => "+real".to_owned(),
        Call::Server(ServerChange::DeleteServer(..)) => "-server".to_owned(),
        Call::Server(other) => format!("{other:?}"),
        Call::MadeSet(..) => "set".to_owned(),
        Call::Entered(set, ..) => format!("+{set:?}"),
        Call::Left(set, ..) => format!("-{set:?}"),
        Call::Bound(_) => "+address".to_owned(),
        Call::Unbound(_) => "-address".to_owned(),
        Call::Restored(_, table) => table.as_str().to_owned(),
    });
    letters.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_service_comes_and_goes_in_order() {
    let mut node = Node::serving(&[(1, Drawn::plain(1, "rr"))]);
    let service = Drawn::plain(0, "-r");
    let changes = node.set([(0, Some(&service))]);
    all_well(&node.sync(&changes));
    assert_eq!(letters(&node), "+IpvsIps +ClusterIp +server +real +address");
    node.forget_log();
    let changes = node.set([(0, None)]);
    all_well(&node.sync(&changes));
    assert_eq!(letters(&node), "-ClusterIp -server -address -IpvsIps");
}

#[test]
fn rules_stand_before_the_address_that_they_are_for() {
    let mut node = Node::serving(&[]);
    let changes = node.set([(0, Some(&Drawn::plain(0, "-r")))]);
    all_well(&node.sync(&changes));
    assert_eq!(letters(&node), "+IpvsIps +ClusterIp +server +real nat +address");
}

/// Another mode may have left rules that serve until ours do. A chain of the node's own does not.
#[test]
fn at_first_the_rules_of_nat_come_last_where_any_serve() {
    for (left, expected) in [
        (None, "filter nat +address"),
        (Some("FLANNEL-POSTRTG"), "filter nat +address"),
        (Some("KUBE-SERVICES"), "filter +address nat"),
    ] {
        let mut node = Node::new();
        node.only(Family::V4);
        if let Some(chain) = left {
            node.rules[0].1.change_externally(|tables| {
                tables.entry(Table::Nat).or_default().insert(chain.to_owned(), Vec::new());
            });
        }
        let changes = node.set([(0, Some(&Drawn::plain(0, "-r")))]);
        all_well(&node.sync(&changes));
        let sets = "set ".repeat(IpSet::ALL.len());
        assert_eq!(
            letters(&node),
            format!("{sets}+IpvsIps +ClusterIp +server +real {expected}"),
            "{left:?} was there"
        );
    }
}

#[test]
fn what_narrows_comes_first_and_goes_last() {
    let mut node = Node::serving(&[]);
    let open = Drawn { balancer: Some(0), node_port: Some(30_000), ..Drawn::plain(0, "r") };
    let narrow = Drawn { ranges: &["192.0.2.0/24"], external_local: true, ..open.clone() };
    node.change(0, Some(&open));
    for (service, expected) in [
        (
            &narrow,
            "+HealthCheckNodePort +NodePortLocalTcp +LoadBalancerSourceCidr +LoadBalancerSourceIp \
             +LoadBalancerLocal +LoadBalancerFirewall",
        ),
        (
            &open,
            "-LoadBalancerFirewall -LoadBalancerLocal -LoadBalancerSourceIp -LoadBalancerSourceCidr \
             -NodePortLocalTcp -HealthCheckNodePort",
        ),
    ] {
        node.forget_log();
        node.change(0, Some(service));
        let log = letters(&node);
        let entries: Vec<&str> = log.split(' ').filter(|word| !["filter", "nat"].contains(word)).collect();
        assert_eq!(entries.join(" "), expected);
    }
}
