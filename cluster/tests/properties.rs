//! What holds for any sequence of events: order does not matter, what is deleted is gone, a list sweeps, and
//! following the events gives what a look at the whole gives.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use portcullis_cluster::desired::{
    Desired, DirtyServices, FrontendAddress, ServicePort, UnservedFrontend, UnservedReason,
};
use portcullis_cluster::{Event, Family, Index, Kind, Name, NamespacedName, Object, ObjectKey};
use proptest::prelude::*;
use serde_json::{Value, json};

fn me() -> Name {
    Name::new("node-a")
}

fn parse(kind: Kind, value: Value) -> Object {
    Object::parse(kind, value).unwrap().object
}

/// An address that this node may have. The node ports that are drawn are among the ports of Services.
const NODE_IP: &str = "192.0.2.9";

/// Few names, so that objects meet.
fn service() -> impl Strategy<Value = Object> {
    let port = (0..2u16, prop_oneof![Just("TCP"), Just("UDP")], prop::option::of(80..83u16));
    let port = port.prop_map(|(n, protocol, node_port)| {
        json!({"name": format!("p{n}"), "port": 80 + n, "protocol": protocol, "nodePort": node_port})
    });
    let clusters = prop_oneof![
        Just(json!(["10.96.0.1"])),
        Just(json!(["fd00::1"])),
        Just(json!(["10.96.0.1", "fd00::1"])),
        Just(json!(["None"])),
    ];
    let policy = || prop_oneof![Just("Cluster"), Just("Local")];
    let created = prop::option::of((0..2u8).prop_map(|n| format!("2026-01-01T00:00:0{n}Z")));
    let made = (created, prop_oneof![Just("a"), Just("b")]);
    let outside =
        || prop::collection::vec(prop_oneof![Just("192.0.2.1"), Just("10.96.0.1"), Just(NODE_IP)], 0..2);
    let outside = (outside(), outside());
    let words = (
        0..3u8,
        clusters,
        prop::collection::vec(port, 0..3),
        policy(),
        policy(),
        any::<bool>(),
        made,
        outside,
    );
    words.prop_map(|(n, ips, ports, internal, external, affinity, (created, uid), (vips, external_ips))| {
        let spec = json!({
            "type": "LoadBalancer", "externalIPs": external_ips, "clusterIP": ips[0], "clusterIPs": ips, "ports": ports,
            "internalTrafficPolicy": internal, "externalTrafficPolicy": external,
            "sessionAffinity": if affinity { "ClientIP" } else { "None" },
        });
        let metadata =
            json!({"name": format!("s{n}"), "namespace": "ns", "uid": uid, "creationTimestamp": created});
        let ingress: Vec<Value> = vips.iter().map(|ip| json!({"ip": ip})).collect();
        let status = json!({"loadBalancer": {"ingress": ingress}});
        parse(Kind::Service, json!({"metadata": metadata, "spec": spec, "status": status}))
    })
}

fn slice() -> impl Strategy<Value = Object> {
    let hint = |words: [&'static str; 2]| {
        prop::option::of(prop::sample::select(words.to_vec())).prop_map(|name| match name {
            Some(name) => json!([{"name": name}]),
            None => Value::Null,
        })
    };
    let endpoint = (
        1..5u8,
        any::<(bool, bool, bool)>(),
        prop_oneof![Just("node-a"), Just("node-b")],
        hint(["zone-a", "zone-b"]),
        hint(["node-a", "node-b"]),
    );
    let port = (0..2u16, prop_oneof![Just("TCP"), Just("UDP")], 8080..8082u16);
    let of = prop_oneof![9 => (0..3u8).prop_map(|n| json!(format!("s{n}"))), 1 => Just(Value::Null)];
    (
        0..4u8,
        of,
        any::<bool>(),
        prop::collection::vec(endpoint, 0..4),
        prop::collection::vec(port, 0..3),
        prop::option::of(0..3u8),
    )
        .prop_map(|(n, of, v6, endpoints, ports, changed)| {
            let endpoints =
                endpoints.into_iter().map(|(ip, (ready, serving, terminating), node, zones, nodes)| {
                    let ip = if v6 { format!("fd00:1::{ip}") } else { format!("10.244.0.{ip}") };
                    json!({
                        "addresses": [ip], "nodeName": node,
                        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
                        "hints": {"forZones": zones, "forNodes": nodes},
                    })
                });
            let ports = ports.into_iter().map(
                |(n, protocol, port)| json!({"name": format!("p{n}"), "port": port, "protocol": protocol}),
            );
            let time = changed.map(|n| format!("2026-01-01T00:00:0{n}Z"));
            let metadata = json!({
                "name": format!("e{n}"), "namespace": "ns",
                "labels": of.as_str().map(|of| json!({"kubernetes.io/service-name": of})),
                "annotations": time.map(|t| json!({"endpoints.kubernetes.io/last-change-trigger-time": t})),
            });
            parse(
                Kind::EndpointSlice,
                json!({
                    "metadata": metadata, "addressType": if v6 { "IPv6" } else { "IPv4" },
                    "endpoints": endpoints.collect::<Vec<_>>(), "ports": ports.collect::<Vec<_>>(),
                }),
            )
        })
}

fn node() -> impl Strategy<Value = Object> {
    let zone = prop::option::of(prop_oneof![Just("zone-a"), Just("zone-b")]);
    let address = prop_oneof![Just("192.0.2.8"), Just(NODE_IP)];
    (prop_oneof![3 => Just("node-a"), 1 => Just("node-b")], zone, address).prop_map(
        |(name, zone, address)| {
            let labels = zone.map(|zone| json!({"topology.kubernetes.io/zone": zone}));
            let status = json!({"addresses": [{"type": "InternalIP", "address": address}]});
            parse(Kind::Node, json!({"metadata": {"name": name, "labels": labels}, "status": status}))
        },
    )
}

fn object() -> impl Strategy<Value = Object> {
    prop_oneof![3 => service(), 5 => slice(), 2 => node()]
}

/// An object that is applied, or the key of one that is deleted.
fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => object().prop_map(Event::Applied),
        1 => object().prop_map(|object| Event::Deleted(object.key())),
    ]
}

/// Any event at all, lists included.
fn any_event() -> impl Strategy<Value = Event> {
    let kind = || prop_oneof![Just(Kind::Service), Just(Kind::EndpointSlice), Just(Kind::Node)];
    prop_oneof![
        10 => event(),
        1 => kind().prop_map(Event::ListStarted),
        1 => kind().prop_map(Event::Listed),
    ]
}

/// Handles events, and returns the changes that affect Services.
fn handle_all(index: &mut Index, events: impl IntoIterator<Item = Event>) -> DirtyServices {
    let mut dirty = DirtyServices::default();
    events.into_iter().for_each(|event| dirty.extend(index.handle(event)));
    dirty
}

fn index_of(events: impl IntoIterator<Item = Event>) -> Index {
    let mut index = Index::new();
    events.into_iter().for_each(|event| _ = index.handle(event));
    index
}

type Served = (
    Option<String>,
    BTreeMap<NamespacedName, Arc<[ServicePort]>>,
    BTreeMap<NamespacedName, Vec<UnservedFrontend>>,
);

fn served(desired: &Desired) -> Served {
    let unserved = desired.unserved_services().map(|name| (name.clone(), desired.unserved(name)));
    (desired.zone().map(str::to_owned), desired.services().clone(), unserved.collect())
}

/// The Services that are served at each frontend.
fn owners(desired: &Desired) -> BTreeMap<FrontendAddress, BTreeSet<NamespacedName>> {
    let mut owners: BTreeMap<FrontendAddress, BTreeSet<NamespacedName>> = BTreeMap::new();
    for port in desired.ports() {
        for frontend in port.frontends().map(|frontend| frontend.address) {
            owners.entry(frontend).or_default().insert(port.name.service.clone());
        }
    }
    owners
}

/// The same events in another order, in which those of one object keep theirs.
fn reordered(events: &[Event], order: &[ObjectKey]) -> Vec<Event> {
    let mut queues: HashMap<ObjectKey, std::collections::VecDeque<Event>> = HashMap::new();
    for event in events {
        queues.entry(key(event)).or_default().push_back(event.clone());
    }
    order.iter().map(|key| queues.get_mut(key).unwrap().pop_front().unwrap()).collect()
}

fn key(event: &Event) -> ObjectKey {
    match event {
        Event::Applied(object) => object.key(),
        Event::Deleted(key) => key.clone(),
        other => panic!("{other:?} is of no one object"),
    }
}

fn events_and_order() -> impl Strategy<Value = (Vec<Event>, Vec<ObjectKey>)> {
    prop::collection::vec(event(), 0..40).prop_flat_map(|events| {
        let keys: Vec<ObjectKey> = events.iter().map(key).collect();
        (Just(events), Just(keys).prop_shuffle())
    })
}

proptest! {
    #[test]
    fn the_order_of_events_does_not_matter((events, order) in events_and_order()) {
        let other = reordered(&events, &order);
        let (index, other) = (index_of(events), index_of(other));
        prop_assert_eq!(served(&Desired::from_index(&index, me())), served(&Desired::from_index(&other, me())));
        for kind in Kind::ALL {
            prop_assert_eq!(index.count(kind), other.count(kind));
        }
    }

    #[test]
    fn what_is_applied_and_deleted_was_never_there(
        kept in prop::collection::vec(object(), 0..8),
        added in prop::collection::vec(object(), 1..20),
    ) {
        let names: BTreeSet<ObjectKey> = added.iter().map(Object::key).collect();
        let kept: Vec<Object> = kept.into_iter().filter(|object| !names.contains(&object.key())).collect();
        let mut index = index_of(kept.iter().cloned().map(Event::Applied));
        let mut desired = Desired::from_index(&index, me());
        let before = served(&desired);
        let dirty = handle_all(&mut index, added.into_iter().map(Event::Applied));
        desired.update(&index, dirty);
        let dirty = handle_all(&mut index, names.into_iter().map(Event::Deleted));
        desired.update(&index, dirty);
        prop_assert_eq!(served(&desired), before);
        let alone = index_of(kept.into_iter().map(Event::Applied));
        for kind in Kind::ALL {
            prop_assert_eq!(index.count(kind), alone.count(kind));
        }
    }

    #[test]
    fn applying_what_stands_and_deleting_what_is_gone_touches_nothing(
        events in prop::collection::vec(event(), 1..30),
    ) {
        let mut index = index_of(events.clone());
        let last: BTreeMap<ObjectKey, Event> = events.into_iter().map(|event| (key(&event), event)).collect();
        prop_assert!(handle_all(&mut index, last.into_values()).is_empty());
    }

    #[test]
    fn following_events_gives_what_a_look_at_the_whole_gives(
        batches in prop::collection::vec(prop::collection::vec(any_event(), 0..6), 1..12),
    ) {
        let mut index = Index::new();
        let mut followed = Desired::new(me());
        let mut known: BTreeMap<NamespacedName, Arc<[ServicePort]>> = BTreeMap::new();
        for events in batches {
            let dirty = handle_all(&mut index, events);
            let changes = followed.update(&index, dirty);
            prop_assert_eq!(served(&followed), served(&Desired::from_index(&index, me())));
            let owners = owners(&followed);
            prop_assert!(owners.values().all(|services| services.len() == 1), "one Service a frontend");
            for name in followed.unserved_services() {
                for UnservedFrontend { frontend, reason, .. } in followed.unserved(name) {
                    let UnservedReason::Shadowed { by } = reason else { panic!("nothing is restricted") };
                    prop_assert_ne!(&by, name);
                    let is_served = |frontend| owners.get(&frontend).is_some_and(|services| services.contains(&by));
                    let node_port = match frontend {
                        FrontendAddress::VirtualIp { protocol, ip, port } => {
                            FrontendAddress::NodePort { protocol, family: Family::from_address(ip), port }
                        }
                        node_port @ FrontendAddress::NodePort { .. } => node_port,
                    };
                    prop_assert!(is_served(frontend) || is_served(node_port), "{frontend} by {by}");
                }
            }

            let names: BTreeSet<&NamespacedName> = changes.iter().map(|change| &change.name).collect();
            prop_assert_eq!(names.len(), changes.len(), "a Service changes once");
            for change in changes {
                prop_assert_ne!(&change.before, &change.after);
                let before = known.get(&change.name).cloned().unwrap_or_default();
                prop_assert_eq!(&change.before, &before, "it begins where the last change ended");
                known.insert(change.name, change.after);
            }
            known.retain(|_, ports| !ports.is_empty());
            prop_assert_eq!(&known, followed.services(), "the changes tell everything");
        }
    }

    #[test]
    fn a_list_sweeps_what_it_does_not_name(
        before in prop::collection::vec(object(), 0..20),
        broken_off in prop::collection::vec(object(), 0..5),
        listed in prop::collection::vec(service(), 0..5),
        meanwhile in prop::collection::vec(slice(), 0..5),
        deleted in prop::option::of(service()),
    ) {
        let mut index = index_of(before.iter().cloned().map(Event::Applied));
        let mut expected: BTreeMap<ObjectKey, Object> =
            before.into_iter().map(|object| (object.key(), object)).collect();
        let apply = |index: &mut Index, expected: &mut BTreeMap<ObjectKey, Object>, object: Object| {
            expected.insert(object.key(), object.clone());
            index.handle(Event::Applied(object));
        };
        // A list that breaks off counts for nothing but what it brought.
        index.handle(Event::ListStarted(Kind::Service));
        broken_off.into_iter().for_each(|object| apply(&mut index, &mut expected, object));
        index.handle(Event::ListStarted(Kind::Service));
        let mut named: BTreeSet<ObjectKey> = listed.iter().map(Object::key).collect();
        listed.into_iter().for_each(|object| apply(&mut index, &mut expected, object));
        meanwhile.into_iter().for_each(|object| apply(&mut index, &mut expected, object));
        if let Some(object) = deleted {
            named.remove(&object.key());
            index.handle(Event::Deleted(object.key()));
        }
        prop_assert!(!index.is_listed(Kind::Service));
        index.handle(Event::Listed(Kind::Service));
        prop_assert!(index.is_listed(Kind::Service) && !index.is_listed(Kind::EndpointSlice));
        expected.retain(|key, _| key.kind != Kind::Service || named.contains(key));

        let whole = index_of(expected.into_values().map(Event::Applied));
        prop_assert_eq!(served(&Desired::from_index(&index, me())), served(&Desired::from_index(&whole, me())));
        for kind in Kind::ALL {
            prop_assert_eq!(index.count(kind), whole.count(kind));
        }
        let again = served(&Desired::from_index(&index, me()));
        index.handle(Event::Listed(Kind::Service));
        prop_assert_eq!(again, served(&Desired::from_index(&index, me())), "the end of no list sweeps nothing");
    }
}
