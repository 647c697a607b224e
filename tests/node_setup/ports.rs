//! Another program has the ports, or another proxy runs.

use std::net::TcpListener;

use crate::daemon::{METRICS, Node};
use crate::http::get;
use crate::namespace;

#[test]
fn the_rules_are_served_while_another_has_the_port_and_it_is_taken_when_it_is_free() {
    namespace::inside(|| {
        let node = Node::new();
        let taken = TcpListener::bind(METRICS).unwrap();
        let mut daemon = node.start(&[]);
        daemon.wait_healthy();
        let log = daemon.log();
        assert!(log.contains("127.0.0.1:10249"), "{log}");
        drop(taken);
        daemon.wait_until("it answers", || get(METRICS, "/proxyMode").is_some());
    });
}

#[test]
fn a_port_that_is_taken_ends_it_where_that_is_asked_for() {
    namespace::inside(|| {
        let node = Node::new();
        let _taken = TcpListener::bind(METRICS).unwrap();
        let mut daemon = node.start(&["--bind-address-hard-fail"]);
        assert_eq!(daemon.ended().code(), Some(2));
        let log = daemon.log();
        assert!(log.contains("127.0.0.1:10249"), "{log}");
    });
}

/// Two DaemonSets that were meant to take turns.
#[test]
fn another_proxy_on_the_node_is_told() {
    namespace::inside(|| {
        let node = Node::new();
        let mut first = node.start(&[]);
        first.wait_healthy();
        let mut second = node.start(&["--healthz-bind-address="]);
        let log = second.log.clone();
        second.wait_until("it tells of the first", || {
            let said = std::fs::read_to_string(&log).unwrap();
            said.contains("portcullis answers on 127.0.0.1:10249 in nftables mode")
        });
    });
}
