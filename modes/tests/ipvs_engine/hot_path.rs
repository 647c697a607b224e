//! What a change costs: what it changes, whatever else there is.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portcullis_modes::Mode;
use portcullis_modes::ipvs::{IpSet, ServerChange};
use portcullis_netlink::ip_vs::{RealServer, VirtualServer};

use crate::cluster::Drawn;
use crate::kernel::Call;
use crate::node::{Node, all_well};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// The virtual server of the Service number `n`, if it is plain, and the real server of an endpoint.
pub fn server(protocol: u8, n: u8) -> VirtualServer {
    VirtualServer { protocol, address: IpAddr::from([10, 96, 0, n + 1]), port: 80 }
}

pub fn real(endpoint: u8, weight: u32) -> RealServer {
    RealServer { address: IpAddr::from([10, 244, 0, endpoint]), port: 8080, weight }
}

pub fn place(endpoint: u8) -> SocketAddr {
    real(endpoint, 1).socket_address()
}

/// What one Service's change asks of the kernel among others that do not change.
fn cost(ports: &'static str, others: usize, from: &str, to: &str) -> (Vec<Call>, usize) {
    let service = |endpoints: &str| Drawn { ports, ..Drawn::plain(0, endpoints) };
    let mut services = vec![(0, service(from))];
    services.extend((1..=others).map(|n| (n, Drawn { cluster_ip: n / 100 + 1, ..Drawn::many(n, "-r-r") })));
    let mut node = Node::serving(&services);
    let changes = node.set([(0, Some(&service(to)))]);
    assert_eq!(changes.len(), 1);
    node.forget_log();
    let reports = node.sync(&changes);
    all_well(&reports);
    assert!(reports.iter().all(|report| !report.is_full));
    let (log, reads) = node.asked();
    assert_eq!(reports.iter().map(|report| report.written).sum::<usize>(), log.len());
    node.is_right();
    (log, reads)
}

#[test]
fn a_change_costs_what_it_changes() {
    let add = |protocol, endpoint| {
        Call::Server(ServerChange::AddRealServer(server(protocol, 0), real(endpoint, 1)))
    };
    let weigh =
        |endpoint, weight| Call::Server(ServerChange::SetRealServer(server(TCP, 0), real(endpoint, weight)));
    let delete = |protocol, endpoint: u8| {
        Call::Server(ServerChange::DeleteRealServer(server(protocol, 0), place(endpoint)))
    };
    let at_home = |protocol, endpoint: u8| {
        let RealServer { address: ip, port, .. } = real(endpoint, 1);
        portcullis_netlink::ipset::SetEntry::IpPortIp { ip, protocol, port, ip2: ip }
    };
    let v4 = portcullis_cluster::Family::V4;
    let met = |protocol, endpoint| Call::Entered(IpSet::LoopBack, v4, at_home(protocol, endpoint));
    let unmet = |protocol, endpoint| Call::Left(IpSet::LoopBack, v4, at_home(protocol, endpoint));
    let rows: [(&str, &'static str, &str, &str, Vec<Call>); 10] = [
        ("one more elsewhere", "t", "rr", "rr-r", vec![add(TCP, 4)]),
        ("one less elsewhere", "t", "rr-r", "rr", vec![weigh(4, 0)]),
        ("one more here", "t", "rr", "rrr", vec![met(TCP, 3), add(TCP, 3)]),
        ("one less here", "t", "rrr", "rr", vec![weigh(3, 0), unmet(TCP, 3)]),
        ("one more by UDP", "u", "rr", "rr-r", vec![add(UDP, 4)]),
        ("one less by UDP", "u", "rr-r", "rr", vec![delete(UDP, 4)]),
        ("one less by SCTP", "s", "rr-r", "rr", vec![delete(SCTP, 4)]),
        ("one that no longer takes connections", "t", "rr-r", "rr-t", vec![weigh(4, 0)]),
        ("one for another", "t", "-r", "---r", vec![weigh(2, 0), add(TCP, 4)]),
        ("nothing that this node sees", "t", "rr-s", "rr", vec![]),
    ];
    for (what, ports, from, to, expected) in rows {
        for others in [2, 200] {
            assert_eq!(cost(ports, others, from, to), (expected.clone(), 0), "{what} among {others}");
        }
    }
}

/// Neither time nor a check that finds nothing costs the sync anything.
#[test]
fn without_change_nothing_is_asked() {
    let mut node = Node::serving(&[(0, Drawn::plain(0, "rr")), (1, Drawn::plain(1, "rr"))]);
    all_well(&node.sync(&[]));
    node.wait(Duration::from_secs(600));
    assert_eq!(node.proxier.next_due(), None);
    assert_eq!(node.asked(), (vec![], 0));
}
