//! Packets traced through the rules of the kernel.

use std::net::UdpSocket;

use portcullis_netlink::nf_tables::{
    Hook, PacketTracer, TraceEvent, TraceFamily, TraceStep, TraceVerdict, TracedDirection, TracedFlow,
    list_rules,
};
use portcullis_netlink::socket::{NetlinkProtocol, Socket};

use crate::namespace::{inside, run};

/// Sends a datagram to a port of this host and returns the trace.
fn trace(port: u16) -> Vec<TraceEvent> {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let flow = TracedFlow {
        source: client.local_addr().unwrap().ip(),
        source_port: client.local_addr().unwrap().port(),
        destination: [127, 0, 0, 1].into(),
        destination_port: port,
        protocol: libc::IPPROTO_UDP as u8,
    };
    let mut tracer = PacketTracer::start(&flow, true).unwrap();
    // Other packets are not traced.
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"other", ("127.0.0.1", port)).unwrap();
    client.send_to(b"first", ("127.0.0.1", port)).unwrap();
    client.send_to(b"second", ("127.0.0.1", port)).ok();
    tracer.read().unwrap()
}

fn describe(event: &TraceEvent) -> String {
    let addresses = event.addresses.map(|found| found.destination.to_string()).unwrap_or_default();
    format!(
        "{} {} {}: {:?} {addresses} {:?}",
        event.family, event.table, event.chain, event.step, event.direction
    )
}

#[test]
fn a_packet_is_traced_to_the_rule_that_drops_it() {
    inside(|| {
        run("ip link set lo up");
        run("nft add table ip corp");
        run("nft add chain ip corp in { type filter hook input priority 0 ; }");
        run("nft add rule ip corp in udp dport 53 counter drop");
        let trace = trace(53);
        let lines: Vec<String> = trace.iter().map(describe).collect();
        let policies = trace.iter().filter(|event| matches!(event.step, TraceStep::Policy(_)));
        let hooks: Vec<Hook> =
            policies.filter_map(|event| event.marker).filter(|m| m.is_first()).map(|m| m.hook).collect();
        assert_eq!(hooks, [Hook::Output, Hook::Postrouting, Hook::Prerouting, Hook::Input], "{lines:#?}");
        assert!(
            !trace.iter().any(|event| event.table == trace[0].table
                && event.addresses.is_none()
                && matches!(event.step, TraceStep::Policy(_))
                && !event.marker.unwrap().is_first()),
            "{lines:#?}"
        );
        let last = trace.last().unwrap();
        assert_eq!(*last.step.verdict(), TraceVerdict::Drop, "{lines:#?}");
        assert_eq!((last.family, last.table.as_str()), (TraceFamily(2), "corp"), "{lines:#?}");
        assert_eq!(last.addresses.unwrap().destination.to_string(), "127.0.0.1:53");
        let TraceStep::Rule { handle, .. } = last.step else { panic!("{lines:#?}") };
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let mut rules = Vec::new();
        list_rules(&mut socket, last.family, "corp", |rule| rules.push(rule)).unwrap();
        let rule = rules.iter().find(|rule| rule.handle == handle).unwrap();
        assert_eq!(
            (rule.chain.as_str(), rule.rule.to_string().as_str()),
            ("in", "udp dport 53 counter drop")
        );
        assert!(trace.iter().all(|event| event.direction == TracedDirection::Original), "{lines:#?}");
    });
}

#[test]
fn replies_and_icmp_errors_are_traced_as_replies() {
    inside(|| {
        run("ip link set lo up");
        let trace = trace(54);
        let replies: Vec<&TraceEvent> =
            trace.iter().filter(|event| event.direction == TracedDirection::Reply).collect();
        assert!(
            replies.iter().any(|event| event.marker.is_some_and(|m| m.hook == Hook::Input && m.is_last()))
        );
        assert_eq!(replies[0].addresses.unwrap().protocol, libc::IPPROTO_ICMP as u8);
        let originals = trace.iter().filter(|event| event.direction == TracedDirection::Original);
        assert!(originals.into_iter().any(|event| event.marker.is_some_and(|m| m.is_last())));
    });
}

#[test]
fn tables_of_a_tracer_end_with_it_and_nobody_else_can_change_them() {
    inside(|| {
        let flow = TracedFlow {
            source: [10, 0, 0, 1].into(),
            source_port: 1,
            destination: [10, 0, 0, 2].into(),
            destination_port: 2,
            protocol: libc::IPPROTO_TCP as u8,
        };
        let tracer = PacketTracer::start(&flow, false).unwrap();
        let second = PacketTracer::start(&flow, false).unwrap();
        assert_ne!(tracer.table(), second.table());
        let listed = run("nft list tables");
        assert!(listed.contains(&format!("table inet {}", tracer.table())), "{listed}");
        let mut other = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        let inet = portcullis_netlink::nf_tables::TableFamily::Inet;
        let deleted = portcullis_netlink::nf_tables::delete_table(&mut other, inet, tracer.table());
        assert_eq!(deleted.unwrap_err().errno(), Some(libc::EPERM));
        drop(tracer);
        drop(second);
        let listed = run("nft list tables");
        assert!(!listed.contains("portcullis-probe"), "{listed}");
    });
}
