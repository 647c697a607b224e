//! Session affinity: connections of a client go to the endpoint of its previous connection.
//!
//! ```text
//! @affinity              client . Service number : endpoint number        entries with a timeout, written by rules
//!
//! affinity-ips           before the dispatch steps to endpoint maps: the client has an entry
//! affinity-ips-known       dnat to  daddr . protocol . dport . endpoint number  map @affinity-service
//!                          else delete the entry: its endpoint does not serve any more
//!
//! affinity-update        after destination NAT, for each new connection: the frontend has a timeout
//! affinity-update-ips-…    update @affinity { client . Service number timeout … : number of the destination }
//! ```
//! A client without an entry is forwarded by the endpoint maps, as to other Services. All Services share the chains, so a change
//! of a Service is a change of elements, as without session affinity. Changes of other endpoints keep the entries.
//!
//! A rule cannot use what it found in a map as the key of another map: `nft` 1.0.6 aborts when it lists such a rule. The packet
//! priority, which nothing uses before the packet is queued on an interface, carries the numbers between lookups, and is 0
//! afterwards.

use std::net::IpAddr;

use portcullis_cluster::desired::{Endpoint, ServicePort};
use portcullis_netlink::nf_tables::{
    CT_STATUS_DNAT, Chain, Ct, DataType, DynsetOp, Element, Expression, Field, Key, Register, Rule, SetSpec,
    Verdict,
};
use sha2::{Digest, Sha256};

use super::endpoint_map::{FrontendKey, MapKind, dnat};
use super::names::{
    AFFINE_IPS, AFFINE_NODE_PORTS, AFFINITY, AFFINITY_ENDPOINTS, AFFINITY_UPDATE, SERVICE_IPS,
};
use super::settings::Settings;

/// The number of session-affinity entries. An entry takes about 200 bytes of kernel memory.
const MAX_ENTRIES: u32 = 1 << 20;

/// A register after those of addresses and keys.
const FREE: Register = Register(8);

/// The session affinity of a Service port.
#[derive(Clone, Copy)]
pub(super) struct Affinity {
    /// The number of the port in entries. All its frontends share entries.
    pub(super) service: u32,
    pub(super) timeout_seconds: u32,
}

impl Affinity {
    /// Returns `None` for a port without session affinity.
    pub(super) fn new(port: &ServicePort) -> Option<Self> {
        let (timeout_seconds, cluster_ip) = (port.affinity?, port.cluster_ip?);
        let protocol_and_port = u32::from(port.name.protocol.number()) << 16 | u32::from(port.port.get());
        Some(Affinity { service: number(cluster_ip, protocol_and_port), timeout_seconds })
    }
}

/// Returns the number of an endpoint in entries.
pub(super) fn endpoint_number(endpoint: &Endpoint) -> u32 {
    number(endpoint.ip, endpoint.port.get().into())
}

/// Returns a number of an address and another number that does not change with other Services, endpoints or starts of the program.
/// Two are equal once in 2^32 pairs. Then clients of two Services, or of two endpoints of a Service, share entries: they may change
/// to another endpoint of the Service that they connect to, and never reach one of another Service.
fn number(address: IpAddr, other: u32) -> u32 {
    let mut content = Sha256::new();
    match address {
        IpAddr::V4(v4) => content.update(v4.octets()),
        IpAddr::V6(v6) => content.update(v6.octets()),
    }
    content.update(other.to_be_bytes());
    let hash = content.finalize();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

impl FrontendKey {
    /// Returns the map from frontends with session affinity to the numbers of their Service ports, which is also the name of the
    /// chain that looks up the entries of clients.
    pub(super) fn affinity_map(self) -> &'static str {
        match self {
            FrontendKey::Address => AFFINE_IPS,
            FrontendKey::NodePort => AFFINE_NODE_PORTS,
        }
    }

    /// Returns the map from frontends with session affinity to their timeouts in seconds.
    pub(super) fn affinity_timeouts(self) -> &'static str {
        match self {
            FrontendKey::Address => "affinity-timeouts-ips",
            FrontendKey::NodePort => "affinity-timeouts-nodeports",
        }
    }

    /// Returns the verdict map from timeouts to the chains that write entries.
    pub(super) fn affinity_updates(self) -> &'static str {
        match self {
            FrontendKey::Address => "affinity-update-ips",
            FrontendKey::NodePort => "affinity-update-nodeports",
        }
    }

    /// Returns the map from frontends and endpoint numbers to endpoints.
    pub(super) fn affinity_endpoints(self, kind: MapKind) -> &'static str {
        match (self, kind) {
            (FrontendKey::Address, MapKind::Direct) => "affinity-service",
            (FrontendKey::Address, MapKind::Masqueraded) => "affinity-external",
            (FrontendKey::Address, MapKind::Internal) => "affinity-inside",
            (FrontendKey::NodePort, MapKind::Direct) => "affinity-nodeport-local",
            (FrontendKey::NodePort, MapKind::Masqueraded) => "affinity-nodeport",
            (FrontendKey::NodePort, MapKind::Internal) => "affinity-nodeport-inside",
        }
    }

    /// Returns the frontends whose session affinity a map has; `None` for other sets.
    pub(super) fn of_affinity_map(set: &str) -> Option<FrontendKey> {
        let has = |key: &FrontendKey| {
            let endpoints = MapKind::ALL.map(|kind| key.affinity_endpoints(kind));
            set == key.affinity_map() || set == key.affinity_timeouts() || endpoints.contains(&set)
        };
        FrontendKey::ALL.into_iter().find(has)
    }

    /// Returns the chain that looks up the entries of clients. `is_internal`: of internal clients of frontends with external traffic
    /// policy Local.
    pub(super) fn affinity_chain(self, is_internal: bool) -> &'static str {
        match (self, is_internal) {
            (_, false) => self.affinity_map(),
            (FrontendKey::Address, true) => "affinity-ips-inside",
            (FrontendKey::NodePort, true) => "affinity-nodeports-inside",
        }
    }

    /// Returns the chain that forwards to the endpoints of entries.
    fn known_clients_chain(self, is_internal: bool) -> &'static str {
        match (self, is_internal) {
            (FrontendKey::Address, false) => "affinity-ips-known",
            (FrontendKey::Address, true) => "affinity-ips-inside-known",
            (FrontendKey::NodePort, false) => "affinity-nodeports-known",
            (FrontendKey::NodePort, true) => "affinity-nodeports-inside-known",
        }
    }

    /// Returns the fields by which the frontend of a connection is looked up after destination NAT.
    fn original_fields(self, settings: &Settings) -> Vec<Field> {
        let port = [Field::PROTOCOL, Field::Ct(Ct::OriginalDestinationPort)];
        let address = Field::Ct(Ct::original_destination(settings.kernel_family()));
        match self {
            FrontendKey::NodePort => port.into(),
            FrontendKey::Address => [&[address], &port[..]].concat(),
        }
    }
}

/// Returns the sets and maps, with their comments.
pub(super) fn sets(settings: &Settings) -> Vec<(&'static str, SetSpec, &'static str)> {
    let (number, endpoint) = (DataType::Mark, [settings.address(), DataType::InetService]);
    let entries = SetSpec {
        dynamic: true,
        timeout: Some(0),
        size: Some(MAX_ENTRIES),
        ..SetSpec::new(&[settings.address(), number]).with_data(&[number])
    };
    let endpoints = SetSpec::new(&endpoint).with_data(&[number]);
    let mut sets = vec![
        (AFFINITY, entries, "clients, and the endpoints that served them"),
        (AFFINITY_ENDPOINTS, endpoints, "numbers of endpoints"),
    ];
    for key in FrontendKey::ALL {
        let frontends = SetSpec::new(&key.types(settings)).with_data(&[number]);
        sets.push((key.affinity_map(), frontends.clone(), "numbers of Services with affinity"));
        sets.push((key.affinity_timeouts(), frontends, "timeouts of affinity in seconds"));
        sets.push((key.affinity_updates(), SetSpec::verdict_map(&[number]), "timeouts of affinity"));
        let numbered = [&key.types(settings)[..], &[number]].concat();
        for kind in MapKind::ALL {
            let spec = SetSpec::new(&numbered).with_data(&endpoint);
            sets.push((key.affinity_endpoints(kind), spec, "endpoints by their own number"));
        }
    }
    sets
}

/// Returns the chains that exist with or without Services.
pub(super) fn chains(settings: &Settings) -> Vec<(&'static str, Chain)> {
    let mut chains = vec![(AFFINITY_UPDATE, Chain::new(updates(settings)))];
    for key in FrontendKey::ALL {
        for (is_internal, kinds) in
            [(false, &[MapKind::Direct, MapKind::Masqueraded][..]), (true, &[MapKind::Internal])]
        {
            let known = key.known_clients_chain(is_internal);
            let look_up = Rule::new()
                .set_priority_from_map(&entry_key(settings), AFFINITY)
                .then(Verdict::jump(known))
                .with_comment("clients with an entry");
            let rules = vec![look_up, Rule::new().set_priority(0)];
            chains.push((key.affinity_chain(is_internal), Chain::new(rules)));
            let mut rules: Vec<Rule> =
                kinds.iter().map(|kind| forward_known_client(key, *kind, settings)).collect();
            rules.push(delete_entry(key, settings));
            chains.push((known, Chain::new(rules)));
        }
    }
    chains
}

/// Returns the rule that jumps to the chain for clients of frontends with session affinity.
pub(super) fn dispatch_rule(key: FrontendKey, is_internal: bool, settings: &Settings) -> Rule {
    Rule::new()
        .set_priority_from_map(&key.fields(settings), key.affinity_map())
        .then(Verdict::jump(key.affinity_chain(is_internal)))
}

/// Returns the key of a client's entry. The priority is the number of the Service port.
fn entry_key(settings: &Settings) -> [Field; 2] {
    [settings.source(), Field::PRIORITY]
}

/// Forwards a client to the endpoint of its entry, whose number is the priority, if it still serves the frontend.
fn forward_known_client(key: FrontendKey, kind: MapKind, settings: &Settings) -> Rule {
    let fields = [&key.fields(settings)[..], &[Field::PRIORITY]].concat();
    let rule = Rule::new().map(&fields, key.affinity_endpoints(kind), Register::FIRST);
    let rule = match kind {
        MapKind::Masqueraded => rule.set_mark_in(FREE, settings.mark),
        MapKind::Direct | MapKind::Internal => rule,
    };
    dnat(rule.set_priority(0), settings, Register::FIRST)
}

/// Deletes the entry of a client whose endpoint does not serve any more: an existing entry keeps its endpoint when it is updated.
fn delete_entry(key: FrontendKey, settings: &Settings) -> Rule {
    Rule::new()
        .set_priority_from_map(&key.fields(settings), key.affinity_map())
        .load(&entry_key(settings), Register::FIRST)
        .load(&[Field::PRIORITY], FREE)
        .push(Expression::Dynset {
            set: AFFINITY.into(),
            op: DynsetOp::Delete,
            key: Register::FIRST,
            data: Some(FREE),
            timeout: None,
        })
        .with_comment("the endpoint was removed")
}

/// Returns the rule that jumps to the chain that updates entries, for a hook after destination NAT.
pub(super) fn update_rule() -> Rule {
    Rule::new()
        .any_bit(Field::Ct(Ct::Status), CT_STATUS_DNAT)
        .then(Verdict::jump(AFFINITY_UPDATE))
        .with_comment("session affinity")
}

/// Returns the rules that select the chain with the timeout of a frontend.
fn updates(settings: &Settings) -> Vec<Rule> {
    FrontendKey::ALL
        .map(|key| {
            let rule = match key {
                FrontendKey::Address => Rule::new(),
                // A node port may have the number of another Service's port.
                FrontendKey::NodePort => {
                    Rule::new().is_not_in(&FrontendKey::Address.original_fields(settings), SERVICE_IPS)
                }
            };
            rule.set_priority_from_map(&key.original_fields(settings), key.affinity_timeouts())
                .verdict_map(&[Field::PRIORITY], key.affinity_updates())
        })
        .into()
}

/// Returns the name of the chain that updates entries with a timeout.
pub(super) fn update_chain_name(key: FrontendKey, timeout_seconds: u32) -> String {
    format!("{}-{timeout_seconds}", key.affinity_updates())
}

/// Returns the element of the verdict map by which packets go to the chain of this timeout.
pub(super) fn update_element(key: FrontendKey, timeout_seconds: u32) -> (Key, Element) {
    let chain = update_chain_name(key, timeout_seconds);
    (Key::new().number(timeout_seconds), Element::verdict(Verdict::goto(chain)))
}

/// Returns the chain that adds an entry for the packet's source and destination, or restarts its timeout. If the set of entries is
/// full, the connection has none.
pub(super) fn update_chain(key: FrontendKey, timeout_seconds: u32, settings: &Settings) -> Chain {
    let endpoint = [settings.destination(), Field::DestinationPort];
    let (entry, data) = (FREE, Register(14));
    let update = Rule::new()
        .set_priority_from_map(&key.original_fields(settings), key.affinity_map())
        .load(&entry_key(settings), entry)
        .set_priority_from_map(&endpoint, AFFINITY_ENDPOINTS)
        .load(&[Field::PRIORITY], data)
        .push(Expression::Dynset {
            set: AFFINITY.into(),
            op: DynsetOp::Update,
            key: entry,
            data: Some(data),
            timeout: Some(u64::from(timeout_seconds) * 1000),
        });
    Chain::new(vec![update, Rule::new().set_priority(0)])
}
