//! The recordings in the corpora are complete: targets read everything in them.

use portcullis_netlink::Family;
use portcullis_netlink::conntrack::{ConnectionEvent, ConnectionEvents, Conntrack};
use portcullis_netlink::ip_vs::IpVs;
use portcullis_netlink::ipset::IpSets;
use portcullis_netlink::log::PacketLog;
use portcullis_netlink::nf_tables::{self, Expression, Table, TableFamily, UnknownObjects};
use portcullis_netlink::route::Rtnetlink;
use portcullis_netlink::socket::{NetlinkProtocol, Socket};

use super::nf_tables::TABLE;
use super::replay::with_responses;

fn replay<T>(target: &str, name: &str, action: impl FnOnce() -> T) -> T {
    let path = format!("{}/corpus/{target}/recorded-{name}", env!("CARGO_MANIFEST_DIR"));
    with_responses(&std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}")), action)
}

fn table(name: &str) -> (Table, UnknownObjects) {
    replay("nf_tables_dump", name, || {
        let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
        nf_tables::generation(&mut socket).unwrap();
        let mut chains = 0;
        nf_tables::list_chains(&mut socket, TableFamily::Ip, |_| chains += 1).unwrap();
        assert!(chains > 10, "{chains}");
        nf_tables::read_counters(&mut socket, TableFamily::Ip, TABLE).unwrap();
        nf_tables::read(&mut socket, TableFamily::Ip, TABLE).unwrap().expect("there is a table")
    })
}

#[test]
fn nf_tables_dumps() {
    let (own, unknown) = table("own");
    assert_eq!(unknown, Vec::<String>::new());
    assert!(own.chains.len() > 10 && own.sets.values().any(|set| set.elements.len() > 1), "{own}");
    let (foreign, unknown) = table("foreign");
    for object in ["chain foreign", "set objects", "object big"] {
        assert!(unknown.iter().any(|name| name.starts_with(object)), "{object}: {unknown:?}");
    }
    assert_eq!(foreign.sets["every"].unknown, ["*"]);
    let is_unknown = |expression: &Expression| matches!(expression, Expression::Unknown(_));
    assert!(foreign.chains["marked"].rules.iter().any(|rule| rule.expressions().iter().any(is_unknown)));
    assert_eq!(foreign.counters.len(), own.counters.len() + 1);
}

#[test]
fn flows() {
    let mut flows = 0;
    replay("conntrack", "flows", || {
        Conntrack::open().unwrap().dump(&Family::ALL, &[], |_| {
            flows += 1;
            Ok(())
        })
    })
    .unwrap();
    assert_eq!(flows, 3);
}

#[test]
fn logged_packets_and_connection_events() {
    let mut packets = Vec::new();
    replay("packet_log", "packets", || {
        let mut log = PacketLog::bind(5).unwrap().expect("the group is free");
        while log.receive(|packet| packets.push((packet.prefix.to_vec(), packet.headers()))).unwrap() {}
    });
    let ports: Vec<_> = packets.iter().map(|(_, headers)| headers.expect("an IP packet").ports).collect();
    assert_eq!(ports, [Some((4000, 9)); 2]);
    assert!(packets.iter().all(|(prefix, _)| prefix == b"drop in x"));
    let mut events = Vec::new();
    replay("conntrack_events", "events", || {
        let mut subscription = ConnectionEvents::listen().unwrap();
        while subscription.receive(|event| events.push(event)).unwrap() {}
    });
    let ended = events.iter().filter(|event| matches!(event, ConnectionEvent::Ended(..))).count();
    // The dump before the deletion, which lists both flows, is in the recording too.
    assert_eq!((events.len(), ended), (6, 2));
}

#[test]
fn virtual_servers() {
    replay("ip_vs", "servers", || {
        let mut ip_vs = IpVs::open().unwrap().expect("the list of families has ip_vs");
        let servers = ip_vs.virtual_servers().unwrap();
        assert_eq!(servers.len(), 2);
        for (server, _) in &servers {
            assert_eq!(ip_vs.real_servers(server).unwrap().len(), 2);
            assert!(ip_vs.statistics(server).unwrap().is_some());
            assert!(ip_vs.get(server).unwrap().is_some());
        }
        assert_eq!(ip_vs.all_statistics().unwrap().len(), 2);
        ip_vs.timeouts().unwrap();
    });
}

#[test]
fn ipsets() {
    replay("ipset", "lists", || {
        let mut sets = IpSets::open_or_load().unwrap();
        let names = sets.names().unwrap();
        assert_eq!(names.len(), 5, "{names:?}");
        for name in names {
            assert_eq!(sets.header(&name).unwrap().unwrap().elements, Some(1), "{name}");
            let mut entries = 0;
            let listed = sets.entries(&name, |_| {
                entries += 1;
                Ok(())
            });
            assert!(listed.unwrap());
            assert_eq!(entries, 1, "{name}");
            sets.ports(&name).unwrap();
        }
    });
}

#[test]
fn links_addresses_and_routes() {
    let open = || Rtnetlink::open().unwrap();
    assert_eq!(replay("route", "links", || open().links().unwrap()).len(), 4);
    assert!(replay("route", "addresses", || open().addresses(&Family::ALL).unwrap()).len() > 3);
    assert!(replay("route", "routes", || open().default_route_source(Family::V4).unwrap()).is_some());
    assert!(replay("route", "index", || open().link_index("br0").unwrap()).is_some());
}
