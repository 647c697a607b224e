//! A change costs as many operations as it changes objects, irrespective of the size of the cluster.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portcullis_modes::Mode;
use portcullis_modes::ipvs::{IpSet, ServerChange};
use portcullis_netlink::ip_vs::{RealServer, VirtualServer};

use crate::cluster::TestService;
use crate::kernel::Call;
use crate::node::{Node, assert_no_errors};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// Returns the virtual server of the plain Service number `n`.
pub fn server(protocol: u8, n: u8) -> VirtualServer {
    VirtualServer { protocol, address: IpAddr::from([10, 96, 0, n + 1]), port: 80 }
}

/// Returns the real server of an endpoint.
pub fn real(endpoint: u8, weight: u32) -> RealServer {
    RealServer { address: IpAddr::from([10, 244, 0, endpoint]), port: 8080, weight }
}

pub fn socket_address(endpoint: u8) -> SocketAddr {
    real(endpoint, 1).socket_address()
}

/// Returns the log and the number of reads for a change of one Service among others.
fn cost(ports: &'static str, others: usize, from: &str, to: &str) -> (Vec<Call>, usize) {
    let service = |endpoints: &str| TestService { ports, ..TestService::plain(0, endpoints) };
    let mut services = vec![(0, service(from))];
    services.extend(
        (1..=others).map(|n| (n, TestService { cluster_ip: n / 100 + 1, ..TestService::many(n, "-r-r") })),
    );
    let mut node = Node::serving(&services);
    let changes = node.set([(0, Some(&service(to)))]);
    assert_eq!(changes.len(), 1);
    node.clear_log();
    let reports = node.sync(&changes);
    assert_no_errors(&reports);
    assert!(reports.iter().all(|report| !report.is_full));
    let (log, reads) = node.log_and_reads();
    assert_eq!(reports.iter().map(|report| report.written).sum::<usize>(), log.len());
    node.assert_in_sync();
    (log, reads)
}

#[test]
fn a_change_writes_only_what_it_changes() {
    let add = |protocol, endpoint| {
        Call::Server(ServerChange::AddRealServer(server(protocol, 0), real(endpoint, 1)))
    };
    let set_weight =
        |endpoint, weight| Call::Server(ServerChange::SetRealServer(server(TCP, 0), real(endpoint, weight)));
    let delete = |protocol, endpoint: u8| {
        Call::Server(ServerChange::DeleteRealServer(server(protocol, 0), socket_address(endpoint)))
    };
    let local_entry = |protocol, endpoint: u8| {
        let RealServer { address: ip, port, .. } = real(endpoint, 1);
        portcullis_netlink::ipset::SetEntry::IpPortIp { ip, protocol, port, ip2: ip }
    };
    let v4 = portcullis_cluster::Family::V4;
    let add_local =
        |protocol, endpoint| Call::AddedEntry(IpSet::LoopBack, v4, local_entry(protocol, endpoint));
    let delete_local =
        |protocol, endpoint| Call::DeletedEntry(IpSet::LoopBack, v4, local_entry(protocol, endpoint));
    let rows: [(&str, &'static str, &str, &str, Vec<Call>); 10] = [
        ("an added remote endpoint", "t", "rr", "rr-r", vec![add(TCP, 4)]),
        ("a removed remote endpoint", "t", "rr-r", "rr", vec![set_weight(4, 0)]),
        ("an added local endpoint", "t", "rr", "rrr", vec![add_local(TCP, 3), add(TCP, 3)]),
        ("a removed local endpoint", "t", "rrr", "rr", vec![set_weight(3, 0), delete_local(TCP, 3)]),
        ("an added UDP endpoint", "u", "rr", "rr-r", vec![add(UDP, 4)]),
        ("a removed UDP endpoint", "u", "rr-r", "rr", vec![delete(UDP, 4)]),
        ("a removed SCTP endpoint", "s", "rr-r", "rr", vec![delete(SCTP, 4)]),
        ("a terminating endpoint", "t", "rr-r", "rr-t", vec![set_weight(4, 0)]),
        ("a replaced endpoint", "t", "-r", "---r", vec![set_weight(2, 0), add(TCP, 4)]),
        ("a removed endpoint that does not serve", "t", "rr-s", "rr", vec![]),
    ];
    for (name, ports, from, to, expected) in rows {
        for others in [2, 200] {
            assert_eq!(
                cost(ports, others, from, to),
                (expected.clone(), 0),
                "{name} among {others} Services"
            );
        }
    }
}

/// A sync without a change, and time that passes, cause no reads or writes.
#[test]
fn a_sync_without_changes_does_nothing() {
    let mut node = Node::serving(&[(0, TestService::plain(0, "rr")), (1, TestService::plain(1, "rr"))]);
    assert_no_errors(&node.sync(&[]));
    node.wait(Duration::from_secs(600));
    assert_eq!(node.proxier.next_due(), None);
    assert_eq!(node.log_and_reads(), (vec![], 0));
}
