//! The order of writing, in which no packet meets half a Service.

use std::collections::BTreeSet;
use std::net::IpAddr;

use portcullis_cluster::Family;
use portcullis_modes::iptables::Table;
use portcullis_modes::ipvs::{IpSet, ServerChange};
use portcullis_netlink::ip_vs::VirtualServer;
use portcullis_netlink::ipset::SetEntry;

use crate::cluster::TestService;
use crate::kernel::Call;
use crate::node::{Node, assert_no_errors};

/// The sets that accept packets to a Service's address and port.
const ACCESS: [IpSet; 4] = [IpSet::ClusterIp, IpSet::ExternalIp, IpSet::ExternalIpLocal, IpSet::LoadBalancer];

/// The objects of the kernel that matter for the order.
pub struct KernelModel {
    servers: BTreeSet<VirtualServer>,
    entries: BTreeSet<(IpSet, Family, SetEntry)>,
    bound: BTreeSet<IpAddr>,
}

impl KernelModel {
    pub fn read(node: &Node) -> KernelModel {
        let state = node.kernel.state();
        let mut entries = BTreeSet::new();
        for family in Family::BOTH {
            for set in IpSet::ALL {
                entries.extend(state.entries(set, family).map(|entry| (set, family, *entry)));
            }
        }
        KernelModel {
            servers: state.servers.keys().copied().collect(),
            entries,
            bound: state.link.iter().flatten().copied().collect(),
        }
    }

    fn has(&self, set: IpSet, entry: SetEntry) -> bool {
        let ip = match entry {
            SetEntry::Ip(ip) | SetEntry::IpPort { ip, .. } => ip,
            _ => unreachable!("only these are looked up"),
        };
        self.entries.contains(&(set, Family::from_address(ip), entry))
    }

    fn accepts(&self, key: &VirtualServer) -> bool {
        let VirtualServer { protocol, address, port } = *key;
        ACCESS.into_iter().any(|set| self.has(set, SetEntry::IpPort { ip: address, protocol, port }))
    }

    /// Returns true if packets to any port of an address are accepted.
    fn accepts_any_port(&self, address: IpAddr) -> bool {
        self.entries.iter().any(|(set, _, entry)| {
            ACCESS.contains(set) && matches!(entry, SetEntry::IpPort { ip, .. } if *ip == address)
        })
    }

    fn serves(&self, address: IpAddr) -> bool {
        self.servers.iter().any(|key| key.address == address)
    }
}

/// Fails if a change is out of order.
pub fn check(mut kernel: KernelModel, node: &Node) {
    let own = &node.host.addresses;
    let log = node.kernel.state().log.clone();
    let mut added_now = BTreeSet::new();
    for call in &log {
        match call {
            Call::Server(change) => {
                let key = *change.server();
                // Addresses that the node gets itself are no longer filtered after the sync.
                let ours =
                    kernel.has(IpSet::IpvsIps, SetEntry::Ip(key.address)) && !own.contains(&key.address);
                match change {
                    ServerChange::AddServer(..) => {
                        assert!(
                            !ours || kernel.accepts(&key),
                            "{key:?} is added before its packets are accepted\n{log:#?}"
                        );
                        assert!(
                            !added_now.contains(&key.address),
                            "{key:?} is added after its address\n{log:#?}"
                        );
                        kernel.servers.insert(key);
                    }
                    ServerChange::AddRealServer(..) => {
                        assert!(
                            !added_now.contains(&key.address),
                            "{change:?} follows its address\n{log:#?}"
                        );
                    }
                    ServerChange::DeleteServer(_) => {
                        assert!(
                            !kernel.accepts(&key),
                            "{key:?} is deleted while its packets are accepted\n{log:#?}"
                        );
                        kernel.servers.remove(&key);
                    }
                    _ => {}
                }
            }
            Call::AddedEntry(set, family, entry) => {
                kernel.entries.insert((*set, *family, *entry));
            }
            Call::DeletedEntry(IpSet::IpvsIps, family, SetEntry::Ip(ip)) => {
                assert!(
                    !kernel.bound.contains(ip),
                    "{ip} leaves the filter while it is on the interface\n{log:#?}"
                );
                kernel.entries.remove(&(IpSet::IpvsIps, *family, SetEntry::Ip(*ip)));
            }
            Call::DeletedEntry(set, family, entry) => {
                kernel.entries.remove(&(*set, *family, *entry));
            }
            Call::AddedAddress(address) => {
                assert!(
                    kernel.has(IpSet::IpvsIps, SetEntry::Ip(*address)),
                    "{address} is added before its filter entry\n{log:#?}"
                );
                assert!(
                    kernel.accepts_any_port(*address),
                    "{address} is added before its packets are accepted\n{log:#?}"
                );
                assert!(kernel.serves(*address), "{address} is added before its virtual server\n{log:#?}");
                kernel.bound.insert(*address);
                added_now.insert(*address);
            }
            Call::DeletedAddress(address) => {
                let is_unused = !kernel.serves(*address) && !kernel.accepts_any_port(*address);
                // Virtual servers stay for addresses that the node gets itself.
                assert!(is_unused || own.contains(address), "{address} is deleted too early\n{log:#?}");
                kernel.bound.remove(address);
            }
            Call::CreatedSet(..) | Call::WroteTable(..) => {}
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
        Call::CreatedSet(..) => "set".to_owned(),
        Call::AddedEntry(set, ..) => format!("+{set:?}"),
        Call::DeletedEntry(set, ..) => format!("-{set:?}"),
        Call::AddedAddress(_) => "+address".to_owned(),
        Call::DeletedAddress(_) => "-address".to_owned(),
        Call::WroteTable(_, table) => table.as_str().to_owned(),
    });
    letters.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_service_is_added_and_removed_in_order() {
    let mut node = Node::serving(&[(1, TestService::plain(1, "rr"))]);
    let service = TestService::plain(0, "-r");
    let changes = node.set([(0, Some(&service))]);
    assert_no_errors(&node.sync(&changes));
    assert_eq!(letters(&node), "+IpvsIps +ClusterIp +server +real +address");
    node.clear_log();
    let changes = node.set([(0, None)]);
    assert_no_errors(&node.sync(&changes));
    assert_eq!(letters(&node), "-ClusterIp -server -address -IpvsIps");
}

#[test]
fn rules_are_written_before_the_address() {
    let mut node = Node::serving(&[]);
    let changes = node.set([(0, Some(&TestService::plain(0, "-r")))]);
    assert_no_errors(&node.sync(&changes));
    assert_eq!(letters(&node), "+IpvsIps +ClusterIp +server +real nat +address");
}

/// Rules of another mode serve until those of IPVS mode do. Chains of other programs do not matter.
#[test]
fn nat_rules_come_last_while_another_mode_serves() {
    for (left, expected) in [
        (None, "filter nat +address"),
        (Some("FLANNEL-POSTRTG"), "filter nat +address"),
        (Some("KUBE-SERVICES"), "filter +address nat"),
    ] {
        let mut node = Node::new();
        node.keep_family(Family::V4);
        if let Some(chain) = left {
            node.rules[0].1.change_externally(|tables| {
                tables.entry(Table::Nat).or_default().insert(chain.to_owned(), Vec::new());
            });
        }
        let changes = node.set([(0, Some(&TestService::plain(0, "-r")))]);
        assert_no_errors(&node.sync(&changes));
        let sets = "set ".repeat(IpSet::ALL.len());
        assert_eq!(
            letters(&node),
            format!("{sets}+IpvsIps +ClusterIp +server +real {expected}"),
            "with {left:?}"
        );
    }
}

#[test]
fn narrowing_sets_are_filled_first_and_emptied_last() {
    let mut node = Node::serving(&[]);
    let open = TestService { balancer: Some(0), node_port: Some(30_000), ..TestService::plain(0, "r") };
    let narrow = TestService { ranges: &["192.0.2.0/24"], external_local: true, ..open.clone() };
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
        node.clear_log();
        node.change(0, Some(service));
        let log = letters(&node);
        let entries: Vec<&str> = log.split(' ').filter(|word| !["filter", "nat"].contains(word)).collect();
        assert_eq!(entries.join(" "), expected);
    }
}
