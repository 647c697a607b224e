//! A packet that is under way while the kernel takes a step over: it runs by the old rules, has looked up some things in
//! what was, and looks up the rest in what is, wherever the change falls. As long as there are endpoints before and after,
//! it must find one.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use portcullis_netlink::nf_tables::{Fate, Packet, Table, TracedHost};
use proptest::prelude::*;

use crate::cluster::{
    Cluster, EXTERNAL, NODE, NODE_PORTS, RandomService, SERVICES, ServiceUpdate, cluster_ip, steps,
};

/// The rules while elements change: new chains, and those that try one after another, come before elements move; all others
/// are as they were.
fn rules_meanwhile(before: &Table, after: &Table) -> Table {
    let mut moment = before.clone();
    for (name, chain) in &after.chains {
        let tries = name.starts_with("service-ips") || name.starts_with("service-nodeports");
        if tries || !before.chains.contains_key(name) {
            moment.chains.insert(name.clone(), chain.clone());
        }
    }
    moment
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

/// Where a packet is led.
struct Led {
    /// By all numbers that may be drawn; `None` if it is not by one of them.
    to: Option<BTreeSet<SocketAddr>>,
    /// How much was looked up on the longest way.
    lookups: usize,
}

/// Sends a packet through. `meanwhile`: after so many lookups, elements are those of another table.
fn lead(table: &Table, packet: &Packet, meanwhile: Option<(usize, &Table)>) -> Led {
    let is_local = |ip: IpAddr| ip.to_string() == NODE;
    let machine = TracedHost { tables: &[table], is_local: &is_local };
    let mut lookups = 0;
    // Chains draw one number below the count of endpoints, or several with less and less.
    let numbers = 0..24u32;
    let to = numbers
        .map(|number| {
            let mut rest = number;
            let mut random = |below: u32| {
                let drawn = rest % below;
                rest /= below;
                drawn
            };
            let journey = match meanwhile {
                None => machine.trace(packet.clone(), &mut random),
                Some((lookups, table)) => {
                    machine.trace_during_commit(packet.clone(), lookups, &[table], &mut random)
                }
            };
            lookups = lookups.max(journey.lookups());
            let is_led = journey.fate == Fate::Accepted && journey.packet.destination != packet.destination;
            is_led.then(|| SocketAddr::new(journey.packet.destination, journey.packet.destination_port))
        })
        .collect();
    Led { to, lookups }
}

/// Takes steps, and looks at every moment between two of them.
fn look(steps: &[ServiceUpdate]) -> Result<(), TestCaseError> {
    let mut cluster = Cluster::new();
    let packets = packets();
    let all = |table: &Table| packets.iter().map(|packet| lead(table, packet, None).to).collect::<Vec<_>>();
    let mut before = cluster.table.desired().clone();
    let mut were = all(&before);
    for step in steps {
        let services = cluster.services.clone();
        let after = cluster.take(step);
        let are = all(&after);
        let rules = rules_meanwhile(&before, &after);
        for (packet, (was, is)) in packets.iter().zip(were.iter().zip(&are)) {
            let (Some(was), Some(is)) = (was, is) else { continue };
            // Of several Services that claim an address, any will do.
            let both = [&services, &cluster.services];
            let claimants: BTreeSet<usize> =
                both.iter().flat_map(|services| services.claimants(packet)).collect();
            let valid: BTreeSet<SocketAddr> =
                both.iter().flat_map(|services| services.endpoints(&claimants)).collect();
            for lookups in 0.. {
                let led = lead(&rules, packet, Some((lookups, &after)));
                let Some(to) = led.to else {
                    prop_assert!(false, "{packet:?} is lost: {lookups} looked up in {was:?}, then {is:?}");
                    break;
                };
                prop_assert!(to.is_subset(&valid), "{packet:?}: {to:?}, {was:?}, {is:?}");
                if lookups > led.lookups {
                    break;
                }
            }
        }
        (before, were) = (after, are);
    }
    Ok(())
}

proptest! {
    // Each looks at some hundred thousand journeys.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_packet_under_way_finds_an_endpoint(steps in steps()) {
        look(&steps)?;
    }
}

#[test]
fn packets_are_not_lost_where_they_once_were() {
    let remote = 0b10;
    let external = || RandomService { endpoints: remote, external: Some(0), ..RandomService::default() };
    let local = || Some(RandomService { external_local: true, ..external() });
    let three = || RandomService { endpoints: 0b111, ..external() };
    let affine = |endpoints, internal_local| {
        Some(RandomService { endpoints, internal_local, affinity: true, ..RandomService::default() })
    };
    let rows: [(&str, Vec<ServiceUpdate>); 4] = [
        (
            "pods were led inside by policy Local, which is switched off",
            vec![(vec![(0, local())], 0), (vec![(0, Some(external()))], 0)],
        ),
        (
            "the same where another Service takes the address over",
            vec![(vec![(0, local())], 0), (vec![(0, None), (1, Some(external()))], 0)],
        ),
        (
            "two Services that claim one address grow at once",
            vec![
                (vec![(0, Some(external())), (1, Some(external()))], 0),
                (vec![(0, Some(three())), (1, Some(three()))], 0),
            ],
        ),
        (
            "affinity inside by policy Local, which is switched off and, with other endpoints, on again",
            [affine(0b1, true), affine(0b110, false), affine(0b110, true)]
                .map(|service| (vec![(1, service)], 0))
                .into(),
        ),
    ];
    for (what, steps) in rows {
        look(&steps).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}
