//! The decisions with a real kernel, each test in a network namespace of its own.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use portcullis_netlink::Family;
use portcullis_netlink::conntrack::Flow;

use crate::cluster::{Cluster, Reading, UDP};
use crate::decisions;
use crate::flows::{KernelTable, TestFlowTable, translated, words, written};
use crate::namespace::inside;

#[test]
fn kernel_table_loses_the_same_flows() {
    inside(|| decisions::check(&KernelTable));
}

/// 10,000 flows to 100 Services with 2 endpoints each; one endpoint is removed.
#[test]
fn ten_thousand_flows_are_examined_quickly() {
    const SERVICES: u8 = 100;
    const FLOWS: u16 = 10_000;
    let socket = |a: [u8; 4], port| SocketAddr::new(IpAddr::from(Ipv4Addr::from(a)), port);
    inside(|| {
        let reading = Reading { family: Family::V4, udp_is: UDP };
        let line = |n: u8, endpoints: &str| {
            format!("s{n} udp 10.96.0.{n}:53 node={} {endpoints}\n", 30_000 + u16::from(n))
        };
        let both = |n: u8| line(n, &format!("-> 10.244.1.{n}:53 10.244.2.{n}:53"));
        let before: String = (0..SERVICES).map(both).collect();
        let after = before.replace(&both(7), &line(7, "-> 10.244.1.7:53"));
        let flows: Vec<Flow> = (0..FLOWS)
            .map(|n| {
                let [high, low] = n.to_be_bytes();
                let service = low % SERVICES;
                let endpoint = socket([10, 244, 1 + high % 2, service], 53);
                translated(
                    UDP.1,
                    socket([10, 9, high, low], 40_000),
                    socket([10, 96, 0, service], 53),
                    endpoint,
                )
            })
            .collect();
        let vanished = IpAddr::from([10, 244, 2, 7]);
        let expected: BTreeSet<String> =
            flows.iter().filter(|f| f.reply.source != vanished).map(words).collect();

        let mut cluster = Cluster::new();
        cluster.become_text(&before, reading);
        let mut stale = KernelTable.stale_flows();
        KernelTable.put(&flows);
        let first = stale.delete(&cluster.desired, &written(), &[]).unwrap();
        assert_eq!((first.examined, first.deleted), (FLOWS.into(), 0), "a restart without change");

        let changes = cluster.become_text(&after, reading);
        let start = Instant::now();
        stale.add_changes(&changes);
        let sweep = stale.delete(&cluster.desired, &written(), &[]).unwrap();
        let took = start.elapsed();
        println!(
            "10,000 flows: restart {:?}; {} of {} deleted in {took:?}",
            first.duration, sweep.deleted, sweep.examined
        );
        assert_eq!(KernelTable.take_all(), expected);
        assert_eq!(sweep.deleted, flows.len() - expected.len());
        // Measured: 0.12 s unoptimized, with other tests running.
        assert!(took < Duration::from_secs(5), "{took:?}");
    });
}
