//! The reference plugins after ours in a chain.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::node::{Namespace, Node, REFERENCE_PLUGINS, Response, WIRINGS, addresses, host_link, respond};

/// The latest version that Debian's plugins speak.
const VERSION: &str = "1.0.0";

/// Runs a reference plugin as a runtime runs it after ours.
fn reference(node: &Node, plugin: &str, verb: &str, pod: &Namespace, configuration: &Value) -> Response {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", node.host.path()))
        .arg(format!("{REFERENCE_PLUGINS}/{plugin}"))
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", &pod.name)
        .env("CNI_NETNS", pod.path())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", REFERENCE_PLUGINS)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut configuration = configuration.clone();
    configuration["cniVersion"] = json!(VERSION);
    configuration["name"] = json!("portcullis");
    configuration["type"] = json!(plugin);
    respond(command, &configuration)
}

fn gateway(result: &Value, position: usize) -> &str {
    result["ips"][position]["gateway"].as_str().unwrap()
}

#[test]
fn tuning_and_portmap_follow_in_the_chain() {
    for wiring in WIRINGS {
        let node = Node::new(wiring);
        let pod = Namespace::new();
        let version = json!({ "cniVersion": VERSION });
        let ours = node.plugin_with("ADD", &pod.path(), &pod.name, &version).result();
        // The gateway's neighbour entry is lost too; ARP is answered if the node has a default route, after a random delay.
        node.host.run("ip route add default via 192.0.2.2");
        node.host.run(&format!("sysctl -qw net.ipv4.neigh.{}.proxy_delay=0", host_link(&ours)));
        let tuning = json!({ "mac": "02:00:00:00:00:42", "promisc": true, "prevResult": ours });
        let result = reference(&node, "tuning", "ADD", &pod, &tuning).result();
        assert!(pod.run("ip link show dev eth0").contains("02:00:00:00:00:42"));
        let portmap = json!({
            "runtimeConfig": { "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }] },
            "prevResult": result,
        });
        let result = reference(&node, "portmap", "ADD", &pod, &portmap).result();
        assert_eq!(result["ips"], ours["ips"]);
        let check = json!({ "cniVersion": VERSION, "prevResult": result });
        let response = node.plugin_with("CHECK", &pod.path(), &pod.name, &check);
        // To change the Ethernet address, this version of tuning sets the interface down, and with it goes the default route.
        let lost = "the pod has no route to 0.0.0.0/0 via";
        assert!(
            response.succeeded || response.document["msg"].as_str().unwrap().starts_with(lost),
            "{response:?}"
        );
        pod.run(&format!("ip route replace default via {} dev eth0 onlink", gateway(&ours, 0)));
        pod.run(&format!("ip -6 route replace default via {} dev eth0", gateway(&ours, 1)));
        for address in addresses(&ours).values() {
            node.host.assert_ping(address, &format!("{wiring}: with another Ethernet address"));
        }
        pod.assert_ping("192.0.2.2", wiring);
        pod.assert_ping("2001:db8::2", wiring);
        for (plugin, configuration) in [("portmap", &portmap), ("tuning", &tuning)] {
            let response = reference(&node, plugin, "DEL", &pod, configuration);
            assert!(response.succeeded, "{response:?}");
        }
        assert!(node.plugin_with("DEL", &pod.path(), &pod.name, &check).succeeded);
        node.assert_empty(wiring);
    }
}

#[test]
fn bandwidth_finds_the_nodes_interface() {
    for wiring in WIRINGS {
        let node = Node::new(wiring);
        let pod = Namespace::new();
        let version = json!({ "cniVersion": VERSION });
        let ours = node.plugin_with("ADD", &pod.path(), &pod.name, &version).result();
        let limits = json!({
            "ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000,
            "prevResult": ours,
        });
        reference(&node, "bandwidth", "ADD", &pod, &limits).result();
        let shown = node.host.run("tc qdisc show");
        assert!(shown.contains(&format!("tbf 1: dev {} root", host_link(&ours))), "{wiring}: {shown}");
        assert!(reference(&node, "bandwidth", "CHECK", &pod, &limits).succeeded);
        let check = json!({ "cniVersion": VERSION, "prevResult": ours });
        assert!(node.plugin_with("CHECK", &pod.path(), &pod.name, &check).succeeded);
        node.host.assert_ping(&addresses(&ours)["4"], wiring);
        assert!(reference(&node, "bandwidth", "DEL", &pod, &limits).succeeded);
        assert!(node.plugin_with("DEL", &pod.path(), &pod.name, &check).succeeded);
        node.assert_empty(wiring);
    }
}
