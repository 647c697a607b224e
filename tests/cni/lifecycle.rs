//! `ADD`, `DEL`, `GC` and `STATUS`, in orders that runtimes produce.

use std::collections::HashSet;
use std::fs;

use serde_json::{Value, json};

use super::node::{Namespace, Node, WIRINGS, addresses, host_link, respond};

#[test]
fn the_result_describes_what_was_made() {
    for wiring in WIRINGS {
        let node = Node::new(wiring);
        let (pod, result) = node.add_pod();
        let interfaces = result["interfaces"].as_array().unwrap();
        let on_host = if wiring == "bridge" { 2 } else { 1 };
        assert_eq!(interfaces.len(), on_host + 1);
        for interface in interfaces {
            let name = interface["name"].as_str().unwrap();
            let place = if interface["sandbox"].is_null() { &node.host } else { &pod };
            let shown = place.run(&format!("ip link show dev {name}"));
            assert!(shown.contains(interface["mac"].as_str().unwrap()), "{interface} in {shown}");
            assert!(shown.contains(&format!("mtu {} ", interface["mtu"])), "{interface} in {shown}");
        }
        assert_eq!(interfaces[on_host]["sandbox"], pod.path());
        assert_eq!(interfaces[on_host]["name"], "eth0");
        let shown = pod.run("ip addr show dev eth0");
        for ip in result["ips"].as_array().unwrap() {
            assert_eq!(ip["interface"], on_host);
            assert!(shown.contains(ip["address"].as_str().unwrap()), "{ip} in {shown}");
        }
        let routes = result["routes"].as_array().unwrap();
        assert_eq!(routes.len(), 2);
        for route in routes {
            let family = if route["dst"] == "::/0" { "-6" } else { "-4" };
            let shown = pod.run(&format!("ip {family} route show default"));
            assert!(
                shown.contains(&format!("via {} dev eth0", route["gw"].as_str().unwrap())),
                "{route}: {shown}"
            );
        }
        let alias = node.host.run(&format!("ip link show dev {}", host_link(&result)));
        assert!(alias.contains(&format!("alias portcullis {} eth0", pod.name)), "{alias}");
        assert!(node.check(&pod, &result).succeeded);
    }
}

#[test]
fn a_repeated_add_gives_the_same_addresses() {
    for wiring in WIRINGS {
        let node = Node::new(wiring);
        let (pod, result) = node.add_pod();
        assert_eq!(node.plugin("ADD", &pod).result(), result);
        pod.assert_ping("192.0.2.2", wiring);
        assert!(node.check(&pod, &result).succeeded);
        assert_eq!(node.pod_links().len(), 1);
        node.del(&pod);
        node.assert_empty(wiring);
    }
}

#[test]
fn del_succeeds_whatever_is_missing() {
    for wiring in WIRINGS {
        let node = Node::new(wiring);
        let never_added = Namespace::new();
        node.del(&never_added);
        let (pod, result) = node.add_pod();
        node.del(&pod);
        node.del(&pod);

        let (pod, _) = node.add_pod();
        let name = pod.name.clone();
        drop(pod);
        for netns in [format!("/run/netns/{name}"), "/nonexistent/netns".to_owned(), String::new()] {
            assert!(node.plugin_with("DEL", &netns, &name, &json!({})).succeeded);
        }
        // The kernel deletes the interfaces of a deleted namespace in the background.
        node.assert_empty(wiring);

        let (pod, _) = node.add_pod();
        let changes =
            json!({ "prevResult": Value::Null, "podCIDRs": [], "runtimeConfig": { "portMappings": 1 } });
        assert!(node.plugin_with("DEL", &pod.path(), &pod.name, &changes).succeeded);
        node.assert_empty(wiring);

        let (pod, _) = node.add_pod();
        fs::remove_dir_all(node.state("")).unwrap();
        node.del(&pod);
        node.assert_empty(wiring);
        fs::create_dir_all(node.state("")).unwrap();

        let (pod, _) = node.add_pod();
        node.host.run(&format!("ip link del {}", node.pod_links()[0]));
        assert!(node.plugin_with("DEL", &pod.path(), &pod.name, &json!({ "prevResult": result })).succeeded);
        node.assert_empty(wiring);
    }
}

#[test]
fn a_failed_add_leaves_nothing() {
    for wiring in WIRINGS {
        let node = Node::new(wiring);
        let pod = Namespace::new();
        pod.run("ip link add eth0 type bridge");
        node.plugin("ADD", &pod).assert_error(100, &["has an interface eth0 already", &pod.path()]);
        node.assert_empty(wiring);
        node.del(&pod);
        assert!(pod.run("ip link").contains("eth0"), "it is not ours");

        let missing = "/run/netns/cnitest-missing";
        let add = |netns: &str| node.plugin_with("ADD", netns, "c1", &json!({}));
        add(missing).assert_error(4, &["CNI_NETNS", missing]);
        add("/etc/hostname").assert_error(4, &["CNI_NETNS", "no network namespace"]);
        add(&node.host.path()).assert_error(4, &["CNI_NETNS", "plugin itself"]);
        let deleted = Namespace::new();
        let path = deleted.path();
        // What is left of a namespace that another mount namespace still shows.
        drop(deleted);
        fs::write(&path, "").unwrap();
        add(&path).assert_error(4, &["CNI_NETNS", &path]);
        fs::remove_file(&path).unwrap();
        node.assert_empty(wiring);

        let pod = Namespace::new();
        let taken = json!({ "bridge": "uplink", "wiring": "bridge" });
        node.plugin_with("ADD", &pod.path(), &pod.name, &taken)
            .assert_error(100, &["uplink", "expected a bridge"]);
        let none = json!({ "podCIDRs": [] });
        node.plugin_with("ADD", &pod.path(), &pod.name, &none).assert_error(50, &["no pod CIDR"]);
        let small = json!({ "podCIDRs": ["10.244.1.0/31"] });
        node.plugin_with("ADD", &pod.path(), &pod.name, &small)
            .assert_error(7, &["podCIDRs", "10.244.1.0/31"]);
        let two = json!({ "podCIDRs": ["10.244.1.0/24", "10.244.2.0/24"] });
        node.plugin_with("ADD", &pod.path(), &pod.name, &two).assert_error(7, &["same address family"]);
        node.assert_empty(wiring);
    }
}

#[test]
fn exhausted_ranges_are_reported_and_recover() {
    let mut node = Node::new("ptp");
    node.configuration["podCIDRs"] = json!(["10.244.1.0/30"]);
    let (only, _) = node.add_pod();
    let pod = Namespace::new();
    node.plugin("ADD", &pod).assert_error(101, &["10.244.1.0/30"]);
    assert_eq!(node.pod_links().len(), 1);
    node.del(&only);
    node.plugin("ADD", &pod).result();
}

#[test]
fn gc_removes_what_the_runtime_does_not_know() {
    for wiring in WIRINGS {
        let node = Node::new(wiring);
        let (kept, result) = node.add_pod();
        let leaked: Vec<_> = (0..3).map(|_| node.add_pod()).collect();
        // One without a record, one without an interface.
        fs::remove_file(node.state(&format!("attachments/{}@eth0", leaked[0].0.name))).unwrap();
        node.host.run(&format!("ip link del {}", host_link(&leaked[1].1)));
        // An interface that only resembles one of ours.
        node.host.run("ip link add pcie0 type veth peer name pcie1");

        let gc = |changes| node.plugin_with("GC", "", "", &changes);
        gc(json!({})).assert_error(7, &["cni.dev/valid-attachments"]);
        assert_eq!(node.pod_links().len(), 5, "nothing was removed");
        let valid = json!([{ "containerID": kept.name, "ifname": "eth0" }]);
        assert_eq!(gc(json!({ "cni.dev/valid-attachments": valid })).result(), Value::Null);
        assert_eq!(
            node.pod_links().into_iter().collect::<HashSet<_>>(),
            ["pcie0", "pcie1", &host_link(&result)].map(str::to_owned).into()
        );
        assert_eq!(fs::read_dir(node.state("addresses")).unwrap().count(), 2);
        assert!(node.check(&kept, &result).succeeded);
        kept.assert_ping("192.0.2.2", wiring);
        node.host.run("ip link del pcie0");
        assert_eq!(gc(json!({ "cni.dev/valid-attachments": [] })).result(), Value::Null);
        node.assert_empty(wiring);
    }
}

#[test]
fn status_reports_why_the_node_is_not_ready() {
    let node = Node::new("ptp");
    let status = |changes| node.plugin_with("STATUS", "", "", &changes);
    assert_eq!(status(json!({})).result(), Value::Null);
    status(json!({ "podCIDRs": [] })).assert_error(50, &["no pod CIDR"]);
    fs::remove_dir_all(node.state("")).unwrap();
    status(json!({})).assert_error(50, &["has not set up this node since it booted"]);
    fs::create_dir_all(node.state("")).unwrap();
    fs::write(node.state("not-ready"), "no route to node b\n").unwrap();
    status(json!({})).assert_error(50, &["no route to node b\""]);
    // Pods that exist are not affected.
    let (pod, result) = node.add_pod();
    assert!(node.check(&pod, &result).succeeded);
    fs::remove_file(node.state("not-ready")).unwrap();
    assert!(status(json!({})).succeeded);
}

#[test]
fn pods_are_added_and_removed_concurrently() {
    for (wiring, count) in [("ptp", 100), ("bridge", 20)] {
        let node = Node::new(wiring);
        let pods: Vec<Namespace> = (0..count).map(|_| Namespace::new()).collect();
        let results: Vec<Value> = std::thread::scope(|scope| {
            let added: Vec<_> =
                pods.iter().map(|pod| scope.spawn(|| node.plugin("ADD", pod).result())).collect();
            added.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let all: HashSet<String> =
            results.iter().flat_map(|result| addresses(result).into_values()).collect();
        assert_eq!(all.len(), 2 * count, "each address once");
        for (pod, result) in pods.iter().zip(&results).step_by(9) {
            assert!(node.check(pod, result).succeeded);
            pod.assert_ping(&addresses(&results[count / 2])["4"], wiring);
            pod.assert_ping(&addresses(&results[count / 2])["6"], wiring);
        }
        std::thread::scope(|scope| {
            for pod in &pods {
                scope.spawn(|| node.del(pod));
            }
        });
        node.assert_empty(wiring);
    }
}

#[test]
fn a_pod_may_have_a_second_interface() {
    let node = Node::new("ptp");
    let (pod, first) = node.add_pod();
    let mut command = node.command("ADD", &pod.path(), &pod.name);
    command.env("CNI_IFNAME", "net1");
    let second = respond(command, &node.configuration).result();
    assert_eq!(second["routes"], json!([]), "the default route stays that of the first interface");
    // Replies must leave through the interface that has their source address.
    for (family, gateway) in [("4", "169.254.1.1"), ("6", "fe80::1")] {
        let (address, family) = (&addresses(&second)[family], format!("-{family}"));
        pod.run(&format!("ip {family} rule add from {address} lookup 100"));
        pod.run(&format!("ip {family} route add default via {gateway} dev net1 onlink table 100"));
        node.host.assert_ping(address, "the second interface");
    }
    let mut check = node.command("CHECK", &pod.path(), &pod.name);
    check.env("CNI_IFNAME", "net1");
    let mut configuration = node.configuration.clone();
    configuration["prevResult"] = second;
    assert!(respond(check, &configuration).succeeded);
    let mut command = node.command("DEL", &pod.path(), &pod.name);
    command.env("CNI_IFNAME", "net1");
    assert!(respond(command, &node.configuration).succeeded);
    assert!(node.check(&pod, &first).succeeded, "the first interface stays");
}

#[test]
fn an_add_whose_result_cannot_be_delivered_is_undone() {
    for wiring in WIRINGS {
        let node = Node::new(wiring);
        let pod = Namespace::new();
        let mut command = node.command("ADD", &pod.path(), &pod.name);
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let response = respond(
            {
                command.stdout(full);
                command
            },
            &node.configuration,
        );
        assert!(!response.succeeded && response.stderr.contains("cannot write the result"), "{response:?}");
        node.assert_empty(wiring);
    }
}

#[test]
fn a_bridge_of_a_previous_plugin_is_used() {
    let node = Node::new("bridge");
    node.host.run("ip link add cni0 type bridge");
    node.host.run("ip addr add 10.9.9.1/24 dev cni0");
    let (pod, _) = node.add_pod();
    pod.assert_ping("192.0.2.2", "through the bridge that existed");
    assert!(node.host.run("ip addr show dev cni0").contains("10.9.9.1/24"), "its address stays");
}
