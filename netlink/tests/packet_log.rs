//! Packets that a real kernel logs to an NFLOG group, and events of its connections; each test has its own network namespace.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod namespace;

use std::net::{IpAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use namespace::{inside, run};
use portcullis_netlink::Family;
use portcullis_netlink::conntrack::{
    ConnectionEvent, ConnectionEvents, Conntrack, DirectionCounter, Filter, Tuple,
};
use portcullis_netlink::log::{PacketHeaders, PacketLog};
use portcullis_netlink::nf_tables::{
    BaseChain, Chain, ChainKind, Field, Hook, Rule, TableFamily, Transaction, Verdict, delete_table, open,
};
use portcullis_netlink::socket::Socket;

const GROUP: u16 = 17;
const UDP: u8 = libc::IPPROTO_UDP as u8;
const LIMIT: Duration = Duration::from_secs(20);

/// Drops and logs UDP packets to port 9 that this namespace sends.
fn log_and_drop(prefix: &str, tracked: bool) -> Socket {
    run("ip link set lo up");
    let mut socket = open().unwrap().expect("the kernel has nf_tables");
    let mut transaction = Transaction::new("log packets", TableFamily::Inet, "t").unwrap();
    transaction.add_table(None).unwrap();
    let base = BaseChain { kind: ChainKind::Filter, hook: Hook::Output, priority: 0 };
    transaction.add_chain("out", &Chain { base: Some(base), ..Chain::default() }).unwrap();
    let rule = Rule::new().protocol(UDP).is(Field::DestinationPort, 9u16);
    let rule = if tracked { rule.ct_state(8) } else { rule };
    transaction.add_rule("out", &rule.log(GROUP, prefix, 128).then(Verdict::Drop)).unwrap();
    transaction.commit(&mut socket).unwrap();
    socket
}

/// Sends packets to port 9. The kernel reports dropped ones as errors.
fn send(count: usize) {
    let socket = UdpSocket::bind("127.0.0.1:4000").unwrap();
    (0..count).for_each(|_| _ = socket.send_to(b"hello", "127.0.0.1:9"));
}

/// Receives packets until `done`.
fn receive(log: &mut PacketLog, mut done: impl FnMut(&mut PacketLog, usize) -> bool) -> Vec<PacketHeaders> {
    let (mut packets, start) = (Vec::new(), Instant::now());
    while !done(log, packets.len()) {
        let received = log.receive(|packet| packets.push(packet.headers().expect("an IP packet"))).unwrap();
        assert!(start.elapsed() < LIMIT, "{} packets after {LIMIT:?}", packets.len());
        if !received {
            sleep(Duration::from_millis(5));
        }
    }
    packets
}

#[test]
fn logged_packet_has_prefix_addresses_and_the_destination_before_nat() {
    inside(|| {
        let _rules = log_and_drop("drop in x", true);
        run(
            "nft add table ip n { chain c { type nat hook output priority -100; udp dport 7 dnat to 127.0.0.1:9; }; }",
        );
        let mut log = PacketLog::bind(GROUP).unwrap().expect("the group is free");
        assert_eq!(log.group(), GROUP);
        assert!(PacketLog::bind(GROUP).unwrap().is_none(), "another socket has the group");
        let before = SystemTime::now() - Duration::from_secs(1);
        let socket = UdpSocket::bind("127.0.0.1:4000").unwrap();
        let _ = socket.send_to(b"hello", "127.0.0.9:7");
        let mut seen = Vec::new();
        let start = Instant::now();
        while seen.is_empty() {
            assert!(start.elapsed() < LIMIT);
            let received = log.receive(|packet| {
                let headers = packet.headers().unwrap();
                let time = packet.time(SystemTime::now());
                assert!(time > before && time <= SystemTime::now(), "{time:?}");
                assert_eq!((packet.ether_type, packet.hook), (0x0800, Hook::Output as u8));
                assert!(packet.output.is_some() && packet.input.is_none());
                seen.push((packet.prefix.to_vec(), headers, packet.original_tuple()));
            });
            if !received.unwrap() {
                sleep(Duration::from_millis(5));
            }
        }
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let (prefix, headers, tuple) = &seen[0];
        assert_eq!(prefix, b"drop in x");
        assert_eq!((headers.family, headers.protocol, headers.length), (Family::V4, UDP, 33));
        assert_eq!((headers.source, headers.destination), (address("127.0.0.1"), address("127.0.0.1")));
        assert_eq!(headers.ports, Some((4000, 9)));
        let original = Tuple {
            source: address("127.0.0.1"),
            destination: address("127.0.0.9"),
            source_port: 4000,
            destination_port: 7,
        };
        assert_eq!(*tuple, log.has_flows().then_some(original));
        drop(log);
        assert!(PacketLog::bind(GROUP).unwrap().is_some(), "the group is free again");
    });
}

#[test]
fn packets_that_the_kernel_could_not_deliver_are_counted() {
    const SENT: usize = 10_000;
    inside(|| {
        let _rules = log_and_drop("drop in x", false);
        let mut log = PacketLog::bind(GROUP).unwrap().expect("the group is free");
        log.set_receive_buffer(64 << 10);
        send(SENT);
        // Read what fits into the buffer. The sequence number of one more packet tells how many are missing.
        let mut idle = None;
        let mut packets = receive(&mut log, |_, count| {
            let now = Instant::now();
            match &mut idle {
                Some((seen, since)) if *seen == count => now - *since > Duration::from_millis(500),
                _ => {
                    idle = Some((count, now));
                    false
                }
            }
        });
        assert!(packets.len() < SENT, "the buffer has room for all packets");
        send(1);
        let mut lost = 0;
        let more = receive(&mut log, |log, count| {
            lost += log.take_lost();
            count > 0
        });
        packets.extend(more);
        lost += log.take_lost();
        assert_eq!(packets.len() as u64 + lost, SENT as u64 + 1);
    });
}

#[test]
fn owned_table_ends_with_its_socket() {
    inside(|| {
        let mut socket = open().unwrap().expect("the kernel has nf_tables");
        let mut transaction = Transaction::new("add a table", TableFamily::Inet, "owned").unwrap();
        transaction.add_owned_table(Some("a comment")).unwrap();
        transaction.add_chain("c", &Chain::default()).unwrap();
        transaction.commit(&mut socket).unwrap();
        assert!(run("nft list ruleset").contains("table inet owned"));
        let mut other = open().unwrap().expect("the kernel has nf_tables");
        let denied = delete_table(&mut other, TableFamily::Inet, "owned").unwrap_err();
        assert_eq!(denied.errno(), Some(libc::EPERM), "{denied}");
        drop(socket);
        assert_eq!(run("nft list ruleset"), "");
    });
}

#[test]
fn new_and_ended_connections_are_reported_with_their_bytes() {
    inside(|| {
        run("ip link set lo up");
        run("sysctl -q -w net.netfilter.nf_conntrack_acct=1");
        // Connections are tracked once a rule needs their state.
        run(
            "nft add table ip n { chain c { type nat hook output priority -100; udp dport 7 dnat to 127.0.0.1:9; }; }",
        );
        let mut events = ConnectionEvents::listen().unwrap();
        let server = UdpSocket::bind("127.0.0.1:9").unwrap();
        let client = UdpSocket::bind("127.0.0.1:4000").unwrap();
        client.send_to(b"hello", "127.0.0.9:7").unwrap();
        let (length, from) = server.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(length, 5);
        server.send_to(b"hello, client", from).unwrap();
        client.recv_from(&mut [0; 16]).unwrap();
        Conntrack::open().unwrap().delete_matching(&Filter::new(Family::V4).protocol(UDP)).unwrap();
        let (mut seen, start) = (Vec::new(), Instant::now());
        while seen.len() < 2 {
            assert!(start.elapsed() < LIMIT, "{seen:?}");
            if !events.receive(|event| seen.push(event)).unwrap() {
                sleep(Duration::from_millis(5));
            }
        }
        let [ConnectionEvent::New(new), ConnectionEvent::Ended(ended, counters)] = seen[..] else {
            panic!("{seen:?}");
        };
        assert_eq!((new.original, new.reply, new.protocol), (ended.original, ended.reply, UDP));
        assert_eq!(
            (new.original.destination.to_string(), new.original.destination_port),
            ("127.0.0.9".into(), 7)
        );
        assert_eq!((new.reply.source.to_string(), new.reply.source_port), ("127.0.0.1".into(), 9));
        assert_eq!(counters.original, Some(DirectionCounter { packets: 1, bytes: 33 }));
        assert_eq!(counters.reply, Some(DirectionCounter { packets: 1, bytes: 41 }));
    });
}
