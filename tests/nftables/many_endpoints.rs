//! A Service with session affinity and many endpoints, with a timeout of several units: a state that no fixture has.
//!
//! Its rules draw a random number for each endpoint, so the tracer must merge equal branches: enumerating all sequences of
//! numbers would take 19! traces.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Event, Family, Index, Kind, Name, Object};
use portcullis_modes::{NodeFacts, Options, nftables};
use portcullis_netlink::nf_tables::{Packet, Table};
use serde_json::json;

use crate::outcome::{Node, Outcome};
use crate::{kernel, namespace, recorded};

const ENDPOINTS: u8 = 19;
/// `1h10m42s`
const TIMEOUT_SECONDS: u32 = 4242;
const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 1, 70);
const EXTERNAL_IP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

fn endpoints() -> impl Iterator<Item = SocketAddr> {
    (1..=ENDPOINTS).map(|n| SocketAddr::from(([10, 244, 2, n], 8080)))
}

/// Returns our table.
fn our_table() -> Table {
    let mut index = Index::new();
    let service = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "clusterIP": CLUSTER_IP, "externalIPs": [EXTERNAL_IP], "ports": [{"port": 80, "protocol": "TCP"}],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": TIMEOUT_SECONDS}},
        },
    });
    let slice = json!({
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": endpoints().map(|e| json!({"addresses": [e.ip()]})).collect::<Vec<_>>(),
        "ports": [{"port": 8080, "protocol": "TCP"}],
    });
    for (kind, object) in [(Kind::Service, service), (Kind::EndpointSlice, slice)] {
        let object = Object::parse(kind, object).expect("a valid object").object;
        index.handle(Event::Applied(object));
    }
    let desired = Desired::from_index(&index, Name::new("node-a"));
    nftables::render(&desired, Family::V4, &Options::default(), &NodeFacts::default())
}

/// Returns the table that kube-proxy v1.36.2 has for the same Service, as `nft -s list ruleset` prints it.
fn kube_proxy_table() -> Table {
    let name = |endpoint: SocketAddr| format!("default/web/tcp/__{}/{}", endpoint.ip(), endpoint.port());
    let mut text = format!(
        "table ip kube-proxy {{
	map service-ips {{
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = {{
			{CLUSTER_IP} . tcp . 80 : goto service-default/web/tcp/,
			{EXTERNAL_IP} . tcp . 80 : goto external-default/web/tcp/
		}}
	}}
	chain nat-prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr . meta l4proto . th dport vmap @service-ips
	}}
	chain nat-postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		meta mark & 0x00004000 != 0x00000000 meta mark set meta mark ^ 0x00004000 masquerade fully-random
	}}
	chain external-default/web/tcp/ {{
		meta mark set meta mark | 0x00004000 comment \"masquerade\"
		goto service-default/web/tcp/
	}}
"
    );
    let (mut again, mut targets) = (String::new(), Vec::new());
    for (n, endpoint) in endpoints().enumerate() {
        let name = name(endpoint);
        _ = write!(
            text,
            "	set affinity-{name} {{
		type ipv4_addr
		size 65535
		flags dynamic,timeout
		timeout 1h10m42s
	}}
	chain endpoint-{name} {{
		update @affinity-{name} {{ ip saddr }}
		meta l4proto tcp dnat to {endpoint}
	}}
"
        );
        _ = writeln!(again, "\t\tip saddr @affinity-{name} goto endpoint-{name}");
        targets.push(format!("{n} : goto endpoint-{name}"));
    }
    _ = write!(
        text,
        "	chain service-default/web/tcp/ {{
{again}		numgen random mod {ENDPOINTS} vmap {{ {} }}
	}}
}}
",
        targets.join(", ")
    );
    recorded::table(&text, Family::V4)
}

pub fn recorded_time_spans_may_have_several_units() {
    let table = kube_proxy_table();
    let affinity: Vec<_> = table.sets.iter().filter(|(name, _)| name.starts_with("affinity-")).collect();
    assert_eq!(affinity.len(), usize::from(ENDPOINTS));
    for (name, set) in affinity {
        assert_eq!(set.spec.timeout, Some(u64::from(TIMEOUT_SECONDS) * 1000), "{name}");
        assert!(set.to_string().contains("timeout 1h10m42s"), "{name}: {set}");
    }
}

pub fn affinity_with_19_endpoints_has_19_paths() {
    let addresses = [IpAddr::from([192, 168, 10, 11])];
    let (ours, theirs) = (our_table(), kube_proxy_table());
    let start = Instant::now();
    for (frontend, is_masqueraded) in [(CLUSTER_IP, false), (EXTERNAL_IP, true)] {
        let packet = Packet::new([192, 0, 2, 77].into(), frontend.into(), libc::IPPROTO_TCP as u8, 80);
        let [our_paths, _] = [&ours, &theirs].map(|table| {
            let node = Node { table, addresses: &addresses };
            let paths = node.paths(&packet);
            assert_eq!(paths.len(), usize::from(ENDPOINTS), "one path per endpoint");
            let expected = endpoints().map(|to| {
                let outcome = Outcome::Forwarded { to, is_translated: true, is_masqueraded, mark: 0 };
                (outcome, (1e6 / f64::from(ENDPOINTS)).round() as u32)
            });
            assert_eq!(node.outcomes(&packet), expected.collect(), "{frontend}");
            paths
        });
        // The second connection of the client goes to the same endpoint.
        for (path, _) in our_paths {
            let mut table = ours.clone();
            path.chains.iter().flat_map(|chain| &chain.trace.set_writes).for_each(|write| table.apply(write));
            let node = Node { table: &table, addresses: &addresses };
            let again: Vec<_> = node.outcomes(&packet).into_keys().filter_map(|o| o.endpoint()).collect();
            assert_eq!(again, [Outcome::from_path(&path).endpoint().expect("an endpoint")]);
        }
    }
    // It takes 40 ms on an idle machine.
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// Numbers of endpoints whose maps are tried one after another, and of those that are found by their number.
const NUMBERS: [u16; 7] = [1, 6, 7, 8, 100, 500, 511];

/// Returns a Service with this number of endpoints, on the numbered address and node port. Internal clients of its external frontends
/// use another map than external ones.
fn large_service(number: usize, endpoints: u16) -> [(Kind, serde_json::Value); 2] {
    let name = format!("large-{number}");
    let service = json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": format!("10.96.2.{number}"), "externalTrafficPolicy": "Local",
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30_100 + number}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": format!("203.0.113.{number}")}]}},
    });
    let node = |n: u16| if n.is_multiple_of(2) { "node-a" } else { "node-b" };
    let address = |n: u16| format!("10.244.{}.{}", n / 250, n % 250 + 1);
    let endpoints: Vec<_> =
        (0..endpoints).map(|n| json!({"addresses": [address(n)], "nodeName": node(n)})).collect();
    let slice = json!({
        "metadata": {
            "name": format!("{name}-1"), "namespace": "default", "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8080, "protocol": "TCP"}],
    });
    [(Kind::Service, service), (Kind::EndpointSlice, slice)]
}

pub fn kernel_accepts_maps_that_are_found_by_number_and_nft_lists_them() {
    let mut index = Index::new();
    let services = (1..).zip(NUMBERS);
    for (kind, object) in services.flat_map(|(number, endpoints)| large_service(number, endpoints)) {
        let object = Object::parse(kind, object).expect("a valid object").object;
        index.handle(Event::Applied(object));
    }
    let desired = Desired::from_index(&index, Name::new("node-a"));
    let (options, facts) = (Options::default(), NodeFacts::default());
    namespace::inside(|| {
        kernel::sync_all(&desired, &options, &facts);
        kernel::assert_kernel_has(&desired, &options, &facts, "many endpoints");
        let listed =
            std::process::Command::new("nft").args(["-y", "list", "table", "ip", nftables::TABLE]).output();
        let listed = listed.expect("nft is installed");
        let text = String::from_utf8_lossy(&listed.stdout);
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        for rule in [
            "meta priority set ip daddr . meta l4proto . th dport map @service-counts meta priority vmap @service-by-count",
            "meta priority set meta l4proto . th dport map @nodeport-inside-counts meta priority vmap @nodeport-inside-by-count",
            "jump inside-511",
            "jump service-many",
        ] {
            assert!(text.contains(rule), "{rule} is missing in {text}");
        }
    });
}
