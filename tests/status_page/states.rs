//! States of a node, as the page shows them.

use serde_json::json;

use crate::api_server::ApiServer;
use crate::daemon::Node;
use crate::namespace;
use crate::objects::{POLICY, SHOP, WITHOUT_ENDPOINTS};
use crate::site::{ENABLED, PATHS, Site, write};

#[test]
fn healthy_node() {
    namespace::inside(|| {
        let node = Node::new();
        // Node ports are served on the address of the Node object.
        namespace::run("ip address add 192.0.2.1/32 dev lo");
        write(&node, "shop.yaml", SHOP);
        write(&node, "policy.yaml", POLICY);
        let mut daemon = node.start(&[ENABLED, "--network-policy"]);
        daemon.wait_healthy();
        let mut site = Site::new();
        let text =
            site.open_until(&mut daemon, "/", "it is healthy", |text| text.contains("All rules are in sync"));
        for part in [
            "Healthy",
            "node-a",
            "nftables",
            "No Service has a problem.",
            "No other process has changed rules.",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        site.picture("status-page-healthy");
        for path in PATHS {
            let text = site.open(path);
            assert!(text.contains("node-a"), "{path}: {text}");
        }
        let text = site.open("/services");
        assert!(text.contains("1 to 2 of 2 Services") && text.contains("10.96.0.10:80/tcp"), "{text}");
        site.browser.follow("a[href='/service?namespace=shop&name=web']");
        site.audit("the page of a Service");
        let text = site.browser.text();
        for part in [
            "Service shop/web",
            "node port 30080/tcp",
            "10.244.1.12:8080/tcp",
            "shop/web-1",
            "not ready",
            "50.0 %",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        site.picture("status-page-service");
        let text = site.open("/policies");
        assert!(text.contains("No packet was dropped."), "{text}");
        site.browser.follow("a[href='/policies/namespace?namespace=shop']");
        site.audit("the policies of a namespace");
        let text = site.browser.text();
        for part in ["Policies of namespace shop", "app=web", "isolated, 1 rule", "8080/tcp by IPv4"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        // From the pods of Service web to each other: denied; from basket: allowed.
        let cells = "[...document.querySelectorAll('.matrix tbody tr')].map(row => [...row.children].map(cell => cell.innerText).join(' '))";
        let rows: Vec<String> = serde_json::from_value(site.browser.evaluate(cells)).unwrap();
        assert!(rows.iter().any(|row| row.contains("basket") && row.ends_with("✓ ✓")), "{rows:?}");
        assert!(rows.iter().any(|row| row.contains("web-") && row.ends_with("✓ I")), "{rows:?}");
        site.picture("status-page-matrix");

        let text = site.open("/explain?from=shop/basket&to=shop/web&port=80");
        assert!(text.contains("The connection is allowed") && text.contains("all 2 endpoints"), "{text}");
        let text = site.open("/explain?from=192.0.2.77&to=shop/web-1&port=8080");
        assert!(text.contains("The connection does not arrive") && text.contains("shop/web"), "{text}");
        site.picture("status-page-explain");
        let text = site.open("/explain?from=shop/nothing&to=shop/web");
        assert!(text.contains("Not explained") && text.contains("there is no"), "{text}");
    });
}

/// Node node-b is a neighbour, node-c has an address that no link of this node reaches.
const NODES: &str = "
{apiVersion: v1, kind: Node, metadata: {name: node-b}, spec: {podCIDRs: [10.244.1.0/24]},
  status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: node-c}, spec: {podCIDRs: [10.244.2.0/24]},
  status: {addresses: [{type: InternalIP, address: 198.51.100.3}]}}
";

#[test]
fn node_with_the_pod_network() {
    namespace::inside(|| {
        let node = Node::new();
        namespace::run("ip link add uplink type veth peer name switch");
        namespace::run("ip link set uplink up");
        namespace::run("ip link set switch up");
        namespace::run("ip address add 192.0.2.1/24 dev uplink");
        write(&node, "shop.yaml", SHOP);
        write(&node, "nodes.yaml", NODES);
        let folder = node.folder.path().display();
        let folders = ["bin", "conf", "state"];
        let settings = ["cni-bin-dir", "cni-conf-dir", "state-dir"].into_iter().zip(folders);
        let settings = settings.map(|(name, at)| format!("--pod-network-{name}={folder}/{at}"));
        let settings: Vec<String> = settings.collect();
        let mut arguments = vec![ENABLED, "--pod-network=host-gw"];
        arguments.extend(settings.iter().map(String::as_str));
        let mut daemon = node.start(&arguments);
        let mut site = Site::new();
        let text = site.open_until(&mut daemon, "/", "the pod network is synced", |text| {
            // Addresses are read for each page, where the last sync before it reported them.
            text.contains("ready for pods")
                && !text.contains("not ready for pods")
                && !text.contains("Addresses\nnot known")
        });
        for part in ["host-gw, wiring ptp", "10.244.0.0/24: 0 held by pods, ", "node-c", "198.51.100.3"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        site.browser.evaluate("document.getElementById('pod-network').scrollIntoView()");
        site.picture("status-page-pod-network");
    });
}

/// A Service that the kernel rejects: zero seconds are invalid for iptables' extension `recent`. An API server would reject it.
const BASKET: &str = "
{apiVersion: v1, kind: Service, metadata: {name: basket, namespace: shop},
  spec: {clusterIP: 10.96.0.12, selector: {app: basket}, ports: [{port: 80, targetPort: 8080}],
    sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
  metadata: {name: basket-1, namespace: shop, labels: {kubernetes.io/service-name: basket}},
  ports: [{port: 8080}], endpoints: [{addresses: [10.244.0.30], conditions: {ready: true}}]}
";

#[test]
fn isolated_service() {
    namespace::inside(|| {
        let node = Node::new();
        write(&node, "shop.yaml", SHOP);
        write(&node, "search.yaml", WITHOUT_ENDPOINTS);
        write(&node, "basket.yaml", BASKET);
        let mut daemon = node.start(&[ENABLED, "--mode=iptables"]);
        let mut site = Site::new();
        let text = site.open_until(&mut daemon, "/", "a Service is isolated", |text| {
            text.contains("Isolated objects\n1")
        });
        for part in ["shop/basket", "rejected", "Healthy, with ", "shop/search"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("All rules are in sync"), "{text}");
        site.picture("status-page-isolated");
        let text = site.open("/services?problems=yes");
        assert!(text.contains("1 to 2 of 2 Services") && !text.contains("shop/web"), "{text}");
        let text = site.open("/service?namespace=shop&name=basket");
        for part in ["Not serving", "iptables-restore", "nothing serves it by IPv4", "does not answer"] {
            assert!(text.contains(part), "no version of it was ever accepted: {part}\n{text}");
        }
        assert!(!text.contains("as last accepted"), "{text}");
        let text = site.open("/timeline");
        assert!(text.contains("isolated") && text.contains("shop/basket"), "{text}");
        assert!(!text.contains("external change"), "no other process wrote rules\n{text}");
        site.picture("status-page-timeline");
    });
}

#[test]
fn api_server_that_does_not_respond() {
    namespace::inside(|| {
        let node = Node::new();
        let mut server = ApiServer::start();
        server.apply(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"}}));
        let mut daemon = node.start_following(&server.url(), &[ENABLED]);
        let mut site = Site::new();
        site.open_until(&mut daemon, "/", "it is synced", |text| text.contains("All rules are in sync"));
        server.stop();
        let is_reported = |text: &str| text.contains("failing");
        let text = site.open_until(&mut daemon, "/", "the sources fail", is_reported);
        assert!(text.contains("Healthy, with ") && !text.contains("All rules are in sync"), "{text}");
        assert!(text.contains("API server"), "{text}");
        site.picture("status-page-api-server");
        // The first failure is the interrupted watch.
        let is_refused = |text: &str| text.to_lowercase().contains("refused");
        let text = site.open_until(&mut daemon, "/sources", "connections are refused", is_refused);
        assert!(text.contains("EndpointSlice"), "{text}");
    });
}

#[test]
fn node_that_has_not_synced_yet() {
    namespace::inside(|| {
        let node = Node::new();
        // Nothing listens on the discard port.
        let mut daemon = node.start_following("http://127.0.0.1:9", &[ENABLED]);
        let mut site = Site::new();
        let text = site.open_until(&mut daemon, "/", "it is reported", |text| text.contains("Starting"));
        assert!(text.contains("not synced since the start"), "{text}");
        assert!(!text.contains("All rules are in sync"), "{text}");
        let text = site.open("/explain?from=192.0.2.1&to=192.0.2.2&port=80");
        assert!(text.contains("The daemon has not listed all objects yet."), "{text}");
    });
}

/// Names of objects cannot be like this in a cluster, but a manifest can say anything.
#[test]
fn names_that_look_like_markup_are_shown_as_text() {
    namespace::inside(|| {
        let node = Node::new();
        let service = |name: &str, address: &str| {
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name, "namespace": "shop", "annotations": {"note": name}},
                "spec": {"clusterIP": address, "ports": [{"name": "http", "port": 80}]}
            })
        };
        let script = "<script>window.attacked=1</script>";
        let image = "\"><img src=x onerror='window.attacked=1'>";
        let text =
            [service(script, "10.96.0.66"), service(image, "10.96.0.67")].map(|object| object.to_string());
        write(&node, "shop.yaml", SHOP);
        write(&node, "hostile.yaml", &text.join("\n---\n"));
        let mut daemon = node.start(&[ENABLED]);
        let mut site = Site::new();
        let shown = site.open_until(&mut daemon, "/", "the names are shown", |text| text.contains(script));
        assert!(shown.contains(image), "{shown}");
        site.picture("status-page-names");
        let query: String = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("q", script),
                ("namespace", image),
                ("from", script),
                ("to", image),
                ("name", script),
            ])
            .finish();
        let paths = PATHS.into_iter().chain(["/service", "/policies/namespace", "/nothing"]);
        for path in paths {
            site.browser.open(&format!("http://{}{path}?{query}", crate::site::ADDRESS));
            assert_eq!(site.browser.evaluate("window.attacked === undefined"), true, "{path}");
            assert_eq!(
                site.browser.evaluate("document.querySelectorAll('main script, main img').length"),
                0,
                "{path}"
            );
        }
    });
}
