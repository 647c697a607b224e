//! Tests with ports in use, and with another proxy on the node.

use std::net::TcpListener;

use crate::daemon::{METRICS, Node};
use crate::http::get;
use crate::namespace;

#[test]
fn a_port_in_use_is_retried_while_services_are_served() {
    namespace::inside(|| {
        let node = Node::new();
        let taken = TcpListener::bind(METRICS).unwrap();
        let mut daemon = node.start(&[]);
        daemon.wait_healthy();
        let log = daemon.log.clone();
        daemon.wait_until("the log names the port in use", || {
            std::fs::read_to_string(&log).unwrap().contains("127.0.0.1:10249")
        });
        drop(taken);
        daemon.wait_until("it answers", || get(METRICS, "/proxyMode").is_some());
    });
}

#[test]
fn a_port_in_use_ends_the_daemon_with_hard_fail() {
    namespace::inside(|| {
        let node = Node::new();
        let _taken = TcpListener::bind(METRICS).unwrap();
        let mut daemon = node.start(&["--bind-address-hard-fail"]);
        assert_eq!(daemon.wait_for_exit().code(), Some(2));
        let log = daemon.log();
        assert!(log.contains("127.0.0.1:10249"), "{log}");
    });
}

/// For example with two DaemonSets on one node.
#[test]
fn another_proxy_on_the_node_is_logged() {
    namespace::inside(|| {
        let node = Node::new();
        let mut first = node.start(&[]);
        first.wait_healthy();
        let mut second = node.start(&["--healthz-bind-address="]);
        let log = second.log.clone();
        second.wait_until("the log names the first daemon", || {
            let text = std::fs::read_to_string(&log).unwrap();
            text.contains("portcullis is listening on 127.0.0.1:10249 in nftables mode")
        });
    });
}
