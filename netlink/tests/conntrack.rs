//! Flows of a real kernel; each test has its own network namespace.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod namespace;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use namespace::inside;
use portcullis_netlink::conntrack::{Conntrack, DeleteMethod, Filter, Flow, Tuple, TupleFilter, status};
use portcullis_netlink::{Error, Family};

const TCP: u8 = libc::IPPROTO_TCP as u8;
const UDP: u8 = libc::IPPROTO_UDP as u8;
const SCTP: u8 = libc::IPPROTO_SCTP as u8;
const ICMP: u8 = libc::IPPROTO_ICMP as u8;
const ICMPV6: u8 = libc::IPPROTO_ICMPV6 as u8;
const TIMEOUT: Duration = Duration::from_secs(600);

/// Returns an address of a family by network and number.
fn host(family: Family, net: u8, number: u16) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, net, (number >> 8) as u8, number as u8).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, 0, number).into(),
    }
}

/// Returns a flow from client `client` to Service address `service`, port 53, with endpoint `endpoint`.
fn flow(family: Family, protocol: u8, client: u16, service: u16, endpoint: u16) -> Flow {
    let client = (host(family, 1, client), 40_000);
    let service = (host(family, 2, service), 53);
    let endpoint = (host(family, 3, endpoint), 5353);
    Flow {
        family,
        protocol,
        original: tuple(client, service),
        reply: tuple(endpoint, client),
        id: None,
        status: 0,
        zone: 0,
        mark: 0,
        is_picked_up: false,
    }
}

fn tuple((source, source_port): (IpAddr, u16), (destination, destination_port): (IpAddr, u16)) -> Tuple {
    Tuple { source, destination, source_port, destination_port }
}

/// The parts of a flow that tests compare.
type Key = (u8, IpAddr, u16, IpAddr, u16, u16);

fn key(flow: &Flow) -> Key {
    let Tuple { source, destination, source_port, destination_port } = flow.original;
    (flow.protocol, source, source_port, destination, destination_port, flow.zone)
}

fn listed(conntrack: &mut Conntrack) -> Vec<Flow> {
    let mut flows = Vec::new();
    conntrack
        .dump(&Family::ALL, &[], |flow| {
            flows.push(*flow);
            Ok(())
        })
        .unwrap();
    flows
}

fn keys<'f>(flows: impl IntoIterator<Item = &'f Flow>) -> BTreeSet<Key> {
    flows.into_iter().map(key).collect()
}

#[test]
fn created_flows_are_listed() {
    inside(|| {
        let mut conntrack = Conntrack::open().unwrap();
        let mut flows = Vec::new();
        for family in Family::ALL {
            for protocol in [TCP, UDP, SCTP] {
                flows.push(flow(family, protocol, 1, 1, 1));
            }
        }
        flows.push(Flow {
            mark: 0x4000,
            status: status::SEEN_REPLY | status::ASSURED,
            ..flow(Family::V4, UDP, 2, 1, 1)
        });
        flows.push(Flow { zone: 7, ..flow(Family::V6, UDP, 2, 1, 1) });
        conntrack.create(&flows, TIMEOUT).unwrap();

        let mut found = listed(&mut conntrack);
        assert_eq!(keys(&found), keys(&flows));
        for found in &mut found {
            let made = flows.iter().find(|made| key(made) == key(found)).unwrap();
            assert!(found.id.take().is_some(), "the kernel gives ids");
            assert_eq!(found.status & status::CONFIRMED, status::CONFIRMED);
            found.status &= status::SEEN_REPLY | status::ASSURED;
            assert_eq!(found, made);
        }
    });
}

#[test]
fn a_dump_lists_the_requested_families_and_protocols() {
    inside(|| {
        let mut conntrack = Conntrack::open().unwrap();
        let mut flows = Vec::new();
        for family in Family::ALL {
            for protocol in [TCP, UDP, SCTP] {
                flows.extend((0..3).map(|client| flow(family, protocol, client, 1, 1)));
            }
        }
        conntrack.create(&flows, TIMEOUT).unwrap();
        check_dumps(&mut conntrack, &flows);

        // Enough flows for filtered dumps, one per protocol.
        let many: Vec<_> = (100..31_000).map(|client| flow(Family::V4, TCP, client, 1, 1)).collect();
        conntrack.create(&many, TIMEOUT).unwrap();
        flows.extend(many);
        check_dumps(&mut conntrack, &flows);
    });
}

fn check_dumps(conntrack: &mut Conntrack, flows: &[Flow]) {
    let rows: [(&[Family], &[u8]); 6] = [
        (&Family::ALL, &[]),
        (&[Family::V4], &[]),
        (&[Family::V6], &[UDP]),
        (&Family::ALL, &[UDP, SCTP]),
        (&[Family::V4], &[ICMP]),
        (&[], &[UDP]),
    ];
    for (families, protocols) in rows {
        let mut found = Vec::new();
        conntrack
            .dump(families, protocols, |flow| {
                found.push(*flow);
                Ok(())
            })
            .unwrap();
        let expected: Vec<_> = flows
            .iter()
            .filter(|flow| families.contains(&flow.family))
            .filter(|flow| protocols.is_empty() || protocols.contains(&flow.protocol))
            .copied()
            .collect();
        assert_eq!(found.len(), expected.len(), "{families:?} {protocols:?}: each once");
        assert_eq!(keys(&found), keys(&expected), "{families:?} {protocols:?}");
    }
}

#[test]
fn one_flow_is_deleted() {
    inside(|| {
        let mut conntrack = Conntrack::open().unwrap();
        for family in Family::ALL {
            for protocol in [TCP, UDP, SCTP] {
                let here = flow(family, protocol, 1, 1, 1);
                let other_zone = Flow { zone: 9, ..here };
                let other_client = flow(family, protocol, 2, 1, 1);
                conntrack.create([&here, &other_zone, &other_client], TIMEOUT).unwrap();
                let found = *listed(&mut conntrack).iter().find(|flow| key(flow) == key(&here)).unwrap();

                let impostor = Flow { id: found.id.map(|id| id ^ 1), ..found };
                assert!(!conntrack.delete(&impostor).unwrap(), "another id is another flow");
                assert!(conntrack.delete(&found).unwrap());
                assert!(!conntrack.delete(&found).unwrap(), "gone already");
                assert_eq!(keys(&listed(&mut conntrack)), keys([&other_zone, &other_client]));

                assert!(conntrack.delete(&other_zone).unwrap(), "zones are respected, the id is optional");
                assert!(conntrack.delete(&other_client).unwrap());
            }
        }
        assert_eq!(listed(&mut conntrack), []);
    });
}

#[test]
fn icmp_flows_are_deleted() {
    inside(|| {
        let mut conntrack = Conntrack::open().unwrap();
        for (family, protocol, ask, answer) in
            [(Family::V4, ICMP, 8u16 << 8, 0u16), (Family::V6, ICMPV6, 128 << 8, 129 << 8)]
        {
            let (client, server) = (host(family, 1, 1), host(family, 2, 1));
            let ping = Flow {
                original: tuple((client, 77), (server, ask)),
                reply: tuple((server, 77), (client, answer)),
                ..flow(family, protocol, 1, 1, 1)
            };
            let other = Flow {
                original: tuple((client, 78), (server, ask)),
                reply: tuple((server, 78), (client, answer)),
                ..ping
            };
            conntrack.create([&ping, &other], TIMEOUT).unwrap();
            assert_eq!(keys(&listed(&mut conntrack)), keys([&ping, &other]));
            assert!(conntrack.delete(&ping).unwrap());
            assert_eq!(keys(&listed(&mut conntrack)), keys([&other]));
            assert!(conntrack.delete(&other).unwrap());
        }
    });
}

#[test]
fn delete_where_deletes_exactly_the_stale_flows() {
    inside(|| {
        let mut conntrack = Conntrack::open().unwrap();
        let mut flows = Vec::new();
        for family in Family::ALL {
            for protocol in [TCP, UDP, SCTP] {
                // More than one batch of deletes, and more than one datagram of the dump.
                flows.extend((0..400).map(|client| flow(family, protocol, client, client % 10, client % 7)));
            }
        }
        flows.extend((0..50).map(|client| Flow { zone: 3, ..flow(Family::V4, UDP, client, 4, 5) }));
        conntrack.create(&flows, TIMEOUT).unwrap();

        let gone = [host(Family::V4, 3, 5), host(Family::V6, 3, 5)];
        let stale = |flow: &Flow| gone.contains(&flow.reply.source);
        let done = conntrack.delete_where(&Family::ALL, &[UDP, SCTP], stale).unwrap();

        let (dead, alive): (Vec<Flow>, Vec<Flow>) =
            flows.iter().partition(|flow| flow.protocol != TCP && stale(flow));
        assert_eq!(done.deleted, dead.len());
        assert!(done.examined >= 4 * 400 + 50, "{done:?}");
        assert_eq!(keys(&listed(&mut conntrack)), keys(&alive));

        let again = conntrack.delete_where(&Family::ALL, &[UDP, SCTP], stale).unwrap();
        assert_eq!(again.deleted, 0);
    });
}

/// Returns filters with their names. The last column is true if the kernel may apply the filter.
fn filters() -> Vec<(&'static str, Filter, bool)> {
    let v4 = |protocol| Filter::new(Family::V4).protocol(protocol);
    let v6 = |protocol| Filter::new(Family::V6).protocol(protocol);
    let service =
        |family, number| TupleFilter { destination: Some(host(family, 2, number)), ..TupleFilter::default() };
    let endpoint =
        |family, number| TupleFilter { source: Some(host(family, 3, number)), ..TupleFilter::default() };
    let port = |number| TupleFilter { destination_port: Some(number), ..TupleFilter::default() };
    vec![
        ("a family", Filter::new(Family::V6), false),
        ("a protocol", v4(UDP), true),
        ("a protocol, v6", v6(UDP), true),
        ("SCTP", v4(SCTP), true),
        ("a Service", Filter { original: service(Family::V4, 1), ..v4(UDP) }, true),
        ("a Service, v6", Filter { original: service(Family::V6, 1), ..v6(UDP) }, false),
        ("an endpoint", Filter { reply: endpoint(Family::V4, 1), ..v4(UDP) }, true),
        ("an endpoint, v6", Filter { reply: endpoint(Family::V6, 1), ..v6(SCTP) }, false),
        (
            "a Service and an endpoint",
            Filter { original: service(Family::V4, 1), reply: endpoint(Family::V4, 2), ..v4(UDP) },
            true,
        ),
        ("a port", Filter { original: port(53), ..v4(UDP) }, true),
        ("a port without flows", Filter { original: port(54), ..v4(UDP) }, true),
        ("an SCTP port without flows", Filter { original: port(54), ..v4(SCTP) }, false),
        ("the default zone", Filter { zone: Some(0), ..v4(UDP) }, false),
        ("a zone", Filter { zone: Some(3), ..v4(UDP) }, false),
        ("an address of the other family", Filter { original: service(Family::V4, 1), ..v6(UDP) }, false),
        (
            "a complete tuple, in any zone",
            Filter {
                original: TupleFilter {
                    source: Some(host(Family::V4, 1, 1)),
                    destination: Some(host(Family::V4, 2, 1)),
                    source_port: Some(40_000),
                    destination_port: Some(53),
                },
                ..v4(UDP)
            },
            true,
        ),
    ]
}

#[test]
fn delete_matching_deletes_exactly_the_matching_flows_by_either_method() {
    inside(|| {
        let mut conntrack = Conntrack::open().unwrap();
        let is_supported = conntrack.supports_filtered_delete().unwrap();
        let mut forced = Conntrack::open().unwrap();
        forced.delete_one_by_one();
        assert!(!forced.supports_filtered_delete().unwrap());

        let mut flows = Vec::new();
        for family in Family::ALL {
            for protocol in [TCP, UDP, SCTP] {
                for client in 0..12 {
                    let in_default = flow(family, protocol, client, client % 3, client % 4);
                    flows.extend([in_default, Flow { zone: 3, ..in_default }]);
                }
            }
        }
        for (case, filter, by_kernel) in filters() {
            for one_by_one in [false, true] {
                conntrack.create(&flows, TIMEOUT).unwrap();
                let (dead, alive): (Vec<Flow>, Vec<Flow>) =
                    flows.iter().partition(|flow| filter.matches(flow));
                let matched =
                    if one_by_one { &mut forced } else { &mut conntrack }.delete_matching(&filter).unwrap();
                match matched {
                    DeleteMethod::ByKernel => assert!(by_kernel && is_supported && !one_by_one, "{case}"),
                    DeleteMethod::OneByOne(done) => {
                        assert!(one_by_one || !by_kernel || !is_supported, "{case}");
                        assert_eq!(done.deleted, dead.len(), "{case}");
                    }
                }
                assert_eq!(keys(&listed(&mut conntrack)), keys(&alive), "{case}, one by one: {one_by_one}");
                conntrack.delete_where(&Family::ALL, &[], |_| true).unwrap();
            }
        }
    });
}

#[test]
fn the_test_request_for_filtered_deletes_deletes_nothing() {
    inside(|| {
        let mut conntrack = Conntrack::open().unwrap();
        let flows: Vec<_> = Family::ALL
            .iter()
            .flat_map(|&family| [TCP, UDP, SCTP].map(|protocol| flow(family, protocol, 1, 1, 1)))
            .collect();
        conntrack.create(&flows, TIMEOUT).unwrap();
        conntrack.supports_filtered_delete().unwrap();
        assert_eq!(keys(&listed(&mut conntrack)), keys(&flows));
    });
}

#[test]
fn an_error_of_the_callback_ends_the_dump_and_the_socket_remains_usable() {
    inside(|| {
        let mut conntrack = Conntrack::open().unwrap();
        let flows: Vec<_> = (0..2000).map(|client| flow(Family::V4, UDP, client, 1, 1)).collect();
        conntrack.create(&flows, TIMEOUT).unwrap();
        let mut seen = 0;
        let outcome = conntrack.dump(&Family::ALL, &[], |_| {
            seen += 1;
            Err(Error::NoResponse { action: "go on" })
        });
        assert!(matches!(outcome, Err(Error::NoResponse { action: "go on" })), "{outcome:?}");
        assert_eq!(seen, 1);
        assert_eq!(listed(&mut conntrack).len(), flows.len());
    });
}

#[test]
fn rejections_by_the_kernel_are_described() {
    inside(|| {
        let mut conntrack = Conntrack::open().unwrap();
        let made = flow(Family::V4, UDP, 1, 1, 1);
        conntrack.create([&made], TIMEOUT).unwrap();
        let again = conntrack.create([&made], TIMEOUT).unwrap_err();
        assert_eq!(again.errno(), Some(libc::EEXIST));
        assert_eq!(
            again.to_string(),
            "cannot create a tracked connection: the kernel returned File exists (os error 17)"
        );
    });
}

#[test]
fn flows_of_another_namespace_stay() {
    inside(|| {
        let mut here = Conntrack::open().unwrap();
        let made = flow(Family::V4, UDP, 1, 1, 1);
        here.create([&made], TIMEOUT).unwrap();
        inside(|| {
            let mut there = Conntrack::open().unwrap();
            assert_eq!(listed(&mut there), []);
            there.delete_matching(&Filter::new(Family::V4).protocol(UDP)).unwrap();
            there.delete_where(&Family::ALL, &[], |_| true).unwrap();
        });
        assert_eq!(keys(&listed(&mut here)), keys([&made]));
    });
}

#[test]
fn flows_deleted_by_another_process_are_not_counted() {
    inside(|| {
        let (mut conntrack, mut other) = (Conntrack::open().unwrap(), Conntrack::open().unwrap());
        let flows: Vec<_> = (0..1000).map(|client| flow(Family::V4, UDP, client, 1, client % 2)).collect();
        conntrack.create(&flows, TIMEOUT).unwrap();
        let taken = host(Family::V4, 3, 0);
        let done = conntrack
            .delete_where(&[Family::V4], &[UDP], |flow| {
                if flow.reply.source == taken {
                    other.delete(flow).unwrap();
                }
                true
            })
            .unwrap();
        assert_eq!(done.deleted, 500, "{done:?}");
        assert_eq!(listed(&mut conntrack), []);
    });
}
