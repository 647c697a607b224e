//! Packets in progress while the kernel applies a transaction: a packet continues with the old rules, has looked up some
//! elements before the transaction, and looks up the rest after it. If a frontend has endpoints before and after, each packet
//! to it must find one, whenever the transaction takes effect.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use portcullis_netlink::nf_tables::{Fate, Packet, Table, TracedHost};
use proptest::prelude::*;

use crate::cluster::{Cluster, EXTERNAL, NODE, NODE_PORTS, RandomService, SERVICES, Step, cluster_ip, steps};

/// Returns the rules while elements change: new chains and dispatch chains are written before elements, all others after.
fn rules_during_commit(before: &Table, after: &Table) -> Table {
    let mut table = before.clone();
    for (name, chain) in &after.chains {
        let is_dispatch = name.starts_with("service-ips") || name.starts_with("service-nodeports");
        if is_dispatch || !before.chains.contains_key(name) {
            table.chains.insert(name.clone(), chain.clone());
        }
    }
    table
}

fn packets() -> Vec<Packet> {
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let services = (0..SERVICES).map(cluster_ip).map(|address| (ip(&address), 80));
    let external = EXTERNAL.iter().map(|address| (ip(address), 80));
    let node_ports = NODE_PORTS.iter().map(|port| (ip(NODE), *port));
    let to: Vec<(IpAddr, u16)> = services.chain(external).chain(node_ports).collect();
    let from = [ip("198.51.100.7"), ip("10.244.0.77"), ip(NODE)];
    let tcp = libc::IPPROTO_TCP as u8;
    from.iter().flat_map(|from| to.iter().map(|(to, port)| Packet::new(*from, *to, tcp, *port))).collect()
}

/// The destinations of a packet.
struct Destinations {
    /// The endpoints for all random numbers; `None` if the packet reaches no endpoint for one of them.
    endpoints: Option<BTreeSet<SocketAddr>>,
    /// The number of set lookups on the longest path.
    lookups: usize,
}

/// Traces a packet. `commit` is a table whose elements replace those of `table` after a number of lookups.
fn trace(table: &Table, packet: &Packet, commit: Option<(usize, &Table)>) -> Destinations {
    let is_local = |ip: IpAddr| ip.to_string() == NODE;
    let host = TracedHost { tables: &[table], is_local: &is_local };
    let paths = match commit {
        None => host.paths(packet.clone()),
        Some((lookups, table)) => host.paths_during_commit(packet.clone(), lookups, &[table]),
    };
    let endpoint = |path: &portcullis_netlink::nf_tables::PacketPath| {
        let is_forwarded = path.fate == Fate::Accepted && path.packet.destination != packet.destination;
        is_forwarded.then(|| SocketAddr::new(path.packet.destination, path.packet.destination_port))
    };
    Destinations {
        endpoints: paths.iter().map(|(path, _)| endpoint(path)).collect(),
        lookups: paths.iter().map(|(path, _)| path.lookups()).max().unwrap_or_default(),
    }
}

/// Applies steps, and traces packets with the transaction of each step at every moment.
fn check_steps(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut cluster = Cluster::new();
    let packets = packets();
    let trace_all =
        |table: &Table| packets.iter().map(|packet| trace(table, packet, None).endpoints).collect::<Vec<_>>();
    let mut before = cluster.table.desired().clone();
    let mut old = trace_all(&before);
    for step in steps {
        let services = cluster.services.clone();
        let after = cluster.apply(step);
        let new = trace_all(&after);
        let rules = rules_during_commit(&before, &after);
        for (packet, (old, new)) in packets.iter().zip(old.iter().zip(&new)) {
            let (Some(old), Some(new)) = (old, new) else { continue };
            // Endpoints of all Services that claim the address are valid.
            let both = [&services, &cluster.services];
            let claimants: BTreeSet<usize> =
                both.iter().flat_map(|services| services.claimants(packet)).collect();
            let valid: BTreeSet<SocketAddr> =
                both.iter().flat_map(|services| services.endpoints(&claimants)).collect();
            for lookups in 0.. {
                let found = trace(&rules, packet, Some((lookups, &after)));
                let Some(endpoints) = found.endpoints else {
                    prop_assert!(
                        false,
                        "{packet:?} is lost after {lookups} lookups in {old:?}, then {new:?}"
                    );
                    break;
                };
                prop_assert!(endpoints.is_subset(&valid), "{packet:?}: {endpoints:?}, {old:?}, {new:?}");
                if lookups > found.lookups {
                    break;
                }
            }
        }
        (before, old) = (after, new);
    }
    Ok(())
}

proptest! {
    // Each case traces tens of thousands of packets.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.min(64)))]

    #[test]
    fn packets_find_an_endpoint_during_a_transaction(steps in steps()) {
        check_steps(&steps)?;
    }
}

#[test]
fn packets_that_were_lost_once_find_an_endpoint() {
    let remote = 0b10;
    let external = || RandomService { endpoints: remote, external: Some(0), ..RandomService::default() };
    let local = || Some(RandomService { external_local: true, ..external() });
    let three = || RandomService { endpoints: 0b111, ..external() };
    let with_affinity = |endpoints, internal_local| {
        Some(RandomService { endpoints, internal_local, affinity: true, ..RandomService::default() })
    };
    let many = |more| Some(RandomService { endpoints: 0b1, more, ..RandomService::default() });
    let rows: [(&str, Vec<Step>); 6] = [
        (
            "a Service gets many endpoints, whose map is found by their number, then other numbers",
            [many(1), many(10), many(15), many(31), many(2)].map(|service| (vec![(0, service)], 0)).into(),
        ),
        (
            "maps that are found by their number come and go around a Service",
            vec![
                (vec![(0, many(15))], 0),
                (vec![(1, many(16)), (2, many(30))], 0),
                (vec![(0, many(17))], 1500),
                (vec![(1, None), (2, many(3))], 1500),
                (vec![(0, many(15))], 1500),
            ],
        ),
        (
            "externalTrafficPolicy changes from Local to Cluster: internal clients used another map",
            vec![(vec![(0, local())], 0), (vec![(0, Some(external()))], 0)],
        ),
        (
            "the same, and another Service takes the address",
            vec![(vec![(0, local())], 0), (vec![(0, None), (1, Some(external()))], 0)],
        ),
        (
            "two Services that claim the same address get more endpoints",
            vec![
                (vec![(0, Some(external())), (1, Some(external()))], 0),
                (vec![(0, Some(three())), (1, Some(three()))], 0),
            ],
        ),
        (
            "internalTrafficPolicy with affinity changes to Cluster and back, with other endpoints",
            [with_affinity(0b1, true), with_affinity(0b110, false), with_affinity(0b110, true)]
                .map(|service| (vec![(1, service)], 0))
                .into(),
        ),
    ];
    for (name, steps) in rows {
        check_steps(&steps).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
