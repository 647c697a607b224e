//! Graceful termination: a removed TCP endpoint is deleted when its connections have ended.

use std::time::Duration;

use portcullis_modes::Mode;
use portcullis_modes::ipvs::ServerChange;

use crate::change_cost::{real, server, socket_address};
use crate::cluster::TestService;
use crate::node::{Node, restored};

const TCP: u8 = 6;

/// A change of a weight of Service 0.
fn set(endpoint: u8, weight: u32) -> ServerChange {
    ServerChange::SetRealServer(server(TCP, 0), real(endpoint, weight))
}

fn deleted(endpoint: u8) -> ServerChange {
    ServerChange::DeleteRealServer(server(TCP, 0), socket_address(endpoint))
}

/// Returns a node on which endpoint 2 of Service 0 is draining.
fn draining(active: u32, inactive: u32) -> Node {
    let mut node = Node::serving(&[(0, TestService::plain(0, "rr"))]);
    node.kernel.state().connect(&server(TCP, 0), socket_address(2), active, inactive);
    node.change(0, Some(&TestService::plain(0, "r")));
    assert_eq!(node.kernel.state().server_changes(), [set(2, 0)]);
    node.assert_in_sync();
    node.clear_log();
    node
}

fn changes(node: &Node) -> Vec<ServerChange> {
    let changes = node.kernel.state().server_changes();
    node.clear_log();
    changes
}

#[test]
fn an_endpoint_without_connections_is_deleted_soon() {
    let mut node = draining(0, 0);
    assert_eq!(node.proxier.next_due(), Some(node.now + Duration::from_secs(1)));
    node.wait(Duration::from_millis(999));
    assert_eq!(changes(&node), []);
    node.wait(Duration::from_millis(1));
    assert_eq!(changes(&node), [deleted(2)]);
    assert_eq!(node.proxier.next_due(), None);
}

#[test]
fn an_endpoint_with_connections_stays_until_they_end() {
    for (active, inactive) in [(1, 0), (0, 1), (7, 9)] {
        let mut node = draining(active, inactive);
        node.wait(Duration::from_secs(3600));
        assert_eq!(changes(&node), []);
        let reads = node.kernel.state().reads;
        node.kernel.state().connect(&server(TCP, 0), socket_address(2), 0, 0);
        node.wait(Duration::from_secs(60));
        assert_eq!(changes(&node), [deleted(2)]);
        assert!(reads < 70, "counted {reads} times in an hour");
        node.assert_in_sync();
    }
}

#[test]
fn an_endpoint_that_is_added_again_gets_its_weight_back() {
    let mut node = draining(3, 0);
    node.wait(Duration::from_secs(30));
    node.clear_log();
    node.change(0, Some(&TestService::plain(0, "rr")));
    assert_eq!(changes(&node), [set(2, 1)]);
    node.kernel.state().connect(&server(TCP, 0), socket_address(2), 0, 0);
    node.wait(Duration::from_secs(600));
    assert_eq!(changes(&node), []);
    assert_eq!(node.proxier.next_due(), None);
    node.assert_in_sync();
}

/// Another process may delete a draining endpoint.
#[test]
fn an_endpoint_deleted_by_another_process_is_forgotten_or_created_again() {
    let mut node = draining(1, 0);
    node.kernel.state().servers.get_mut(&server(TCP, 0)).expect("there").real.remove(&socket_address(2));
    node.wait(Duration::from_secs(100));
    assert_eq!((changes(&node), node.proxier.next_due()), (vec![], None));

    let mut node = draining(1, 0);
    node.kernel.state().servers.get_mut(&server(TCP, 0)).expect("there").real.remove(&socket_address(2));
    node.change(0, Some(&TestService::plain(0, "rr")));
    assert_eq!(changes(&node), [set(2, 1), ServerChange::AddRealServer(server(TCP, 0), real(2, 1))]);
    node.wait(Duration::from_secs(100));
    assert_eq!((changes(&node), node.proxier.next_due()), (vec![], None));
    node.assert_in_sync();
}

#[test]
fn a_deleted_service_does_not_drain() {
    let mut node = draining(5, 5);
    node.change(0, None);
    assert_eq!(changes(&node), [ServerChange::DeleteServer(server(TCP, 0))]);
    assert_eq!(node.proxier.next_due(), None);
    // Another Service with the same address starts without draining endpoints.
    node.change(1, Some(&TestService { cluster_ip: 0, ..TestService::plain(1, "rr") }));
    node.wait(Duration::from_secs(100));
    node.assert_in_sync();
    assert_eq!(node.proxier.next_due(), None);
}

#[test]
fn draining_continues_after_a_restart() {
    let mut node = draining(1, 0);
    node.restart();
    assert_eq!(restored(&node.sync_without_rejections(&[])), 0);
    node.wait(Duration::from_secs(300));
    assert_eq!(changes(&node), []);
    node.kernel.state().connect(&server(TCP, 0), socket_address(2), 0, 0);
    node.wait(Duration::from_secs(60));
    assert_eq!(changes(&node), [deleted(2)]);

    let mut node = draining(1, 0);
    node.cluster.set(0, Some(&TestService::plain(0, "rr")));
    node.restart();
    assert_eq!(restored(&node.sync_without_rejections(&[])), 0);
    assert_eq!(changes(&node), [set(2, 1)]);
    node.wait(Duration::from_secs(300));
    assert_eq!(changes(&node), []);
    node.assert_in_sync();
}

/// The sync that begins the draining fails before the kernel receives it.
#[test]
fn an_endpoint_whose_draining_failed_and_that_is_added_again_stays() {
    for fails_after in 0..3 {
        let mut node = Node::serving(&[(0, TestService::plain(0, "rr"))]);
        let changes = node.set([(0, Some(&TestService::plain(0, "r")))]);
        node.kernel.state().fails_after = Some(fails_after);
        node.sync(&changes);
        node.kernel.state().fails_after = None;
        node.change(0, Some(&TestService::plain(0, "rr")));
        node.wait(Duration::from_secs(100));
        node.assert_in_sync();
        assert_eq!(node.kernel.state().servers[&server(TCP, 0)].real.len(), 2);
    }
}

/// The connections of each virtual server are counted separately.
#[test]
fn virtual_servers_drain_independently() {
    let both = |endpoints| TestService { ports: "tts", ..TestService::plain(0, endpoints) };
    let mut node = Node::serving(&[(0, both("rr"))]);
    node.kernel.state().connect(&server(TCP, 0), socket_address(2), 1, 0);
    node.change(0, Some(&both("r")));
    assert_eq!(node.kernel.state().server_changes().len(), 3);
    node.wait(Duration::from_secs(10));
    let left = |node: &Node| node.kernel.state().servers.values().map(|s| s.real.len()).sum::<usize>();
    assert_eq!(left(&node), 4);
    node.kernel.state().connect(&server(TCP, 0), socket_address(2), 0, 0);
    node.wait(Duration::from_secs(60));
    assert_eq!(left(&node), 3);
}
