//! The node's side of the pod network in a network namespace, with folders of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../netlink/tests/namespace/mod.rs"]
mod namespace;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use namespace::{inside, run};
use portcullis::config::PodNetwork;
use portcullis::node_network::cleanup::{self, NodeNetworkCleanup};
use portcullis::node_network::{NodeNetwork, NodeNetworkResult, Severity, Step};
use portcullis_cluster::Name;
use portcullis_podnet::addresses::{AddressStore, AttachmentKey, NewAttachment, PodRange};
use portcullis_podnet::installation::Installation;
use portcullis_podnet::{PodNetworkMode, PodNetworkPlan, Vxlan, Wiring};
use tempfile::TempDir;

struct Node {
    root: TempDir,
    network: NodeNetwork,
}

impl Node {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let config = PodNetwork {
            mode: PodNetworkMode::Vxlan,
            wiring: Wiring::Ptp,
            mtu: None,
            vxlan: Vxlan::default(),
            masquerade: true,
            masquerade_exclude_cidrs: vec!["192.168.0.0/16".parse().unwrap()],
            cni_bin_dir: root.path().join("bin"),
            cni_conf_dir: root.path().join("net.d"),
            state_dir: root.path().join("state"),
        };
        let network = NodeNetwork::new(&config, &[]);
        Node { root, network }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join(name)
    }

    fn apply(&mut self) -> NodeNetworkResult {
        let cidrs = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let plan = PodNetworkPlan {
            node: Name::new("node-1"),
            mode: PodNetworkMode::Vxlan,
            wiring: Wiring::Ptp,
            pod_cidrs: cidrs(&["10.244.1.0/24", "fd00:10:244:1::/64"]),
            cluster_pod_cidrs: Arc::new(BTreeSet::from_iter(cidrs(&["10.244.1.0/24", "10.244.2.0/24"]))),
            mtu: 1450,
            uplinks: Vec::new(),
        };
        self.network.apply(&plan, true)
    }

    fn problems(result: &NodeNetworkResult) -> Vec<(Step, Severity)> {
        result.problems.iter().map(|problem| (problem.step, problem.severity)).collect()
    }
}

#[test]
fn a_node_becomes_ready_when_everything_is_in_place() {
    inside(|| {
        let mut node = Node::new();
        node.network.not_ready("the node has no pod CIDRs");
        assert_eq!(fs::read_to_string(node.path("state/not-ready")).unwrap(), "the node has no pod CIDRs\n");
        let result = node.apply();
        assert!(result.is_ready && result.problems.is_empty(), "{result:?}");
        assert!(result.plugin_installed && result.configuration_written && !result.egress_changes.is_empty());
        assert!(node.path("bin/portcullis").exists() && !node.path("state/not-ready").exists());
        let configuration = fs::read_to_string(node.path("net.d/10-portcullis.conflist")).unwrap();
        assert!(configuration.contains("\"10.244.1.0/24\"") && configuration.contains("\"mtu\": 1450"));
        let listed = run("nft list table inet portcullis-pod-network");
        assert!(listed.contains("10.244.2.0/24") && listed.contains("192.168.0.0/16"), "{listed}");
        for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            assert_eq!(fs::read_to_string(format!("/proc/sys/net/{setting}")).unwrap().trim(), "1");
        }
        let again = node.apply();
        assert!(again.is_ready && !again.plugin_installed && !again.configuration_written);
        assert!(again.egress_changes.is_empty() && again.host_port_changes.is_empty(), "{again:?}");
        fs::write(node.path("bin/portcullis"), "changed by another process").unwrap();
        assert!(node.apply().plugin_installed);
    });
}

#[test]
fn a_failure_keeps_the_node_from_becoming_ready_and_is_named() {
    inside(|| {
        let mut node = Node::new();
        fs::write(node.path("bin"), "a file in place of the folder").unwrap();
        let result = node.apply();
        assert_eq!(Node::problems(&result), [(Step::Plugin, Severity::Failure)], "{result:?}");
        assert!(!result.is_ready && !node.path("net.d/10-portcullis.conflist").exists());
        let reason = fs::read_to_string(node.path("state/not-ready")).unwrap();
        assert!(reason.starts_with("cannot create folder "), "{reason}");
        assert!(run("nft list ruleset").contains("masquerade"), "the other steps were done");
        fs::remove_file(node.path("bin")).unwrap();
        assert!(node.apply().is_ready && !node.path("state/not-ready").exists());
    });
}

#[test]
fn firewalls_and_other_networks_are_reported() {
    inside(|| {
        let mut node = Node::new();
        run("iptables-nft -P FORWARD DROP");
        fs::create_dir(node.path("net.d")).unwrap();
        fs::write(node.path("net.d/05-other.conflist"), "{}").unwrap();
        let result = node.apply();
        assert_eq!(Node::problems(&result), [(Step::Readiness, Severity::Warning)], "{result:?}");
        assert!(result.problems[0].text.contains("05-other.conflist"), "{result:?}");
        assert!(run("iptables-nft -S FORWARD").contains("PORTCULLIS-FORWARD"));
        run("nft add table inet firewall");
        run("nft add chain inet firewall forward { type filter hook forward priority 0 ; policy drop ; }");
        let result = node.apply();
        assert_eq!(Node::problems(&result)[0], (Step::Firewall, Severity::Note), "{result:?}");
        assert!(result.is_ready && result.problems[0].text.contains("inet firewall forward"), "{result:?}");
        // As firewalld: the policy is accept, and the last rule rejects the rest. A chain whose last rule has a match drops some packets.
        run("nft delete table inet firewall");
        run("nft add table inet firewalld");
        let chain = "type filter hook forward priority 10 ; policy accept ;";
        for name in ["filter_FORWARD", "other"] {
            run(&format!("nft add chain inet firewalld {name} {{ {chain} }}"));
            run(&format!("nft add rule inet firewalld {name} ct state established,related accept"));
        }
        run("nft add rule inet firewalld filter_FORWARD counter reject with icmpx type admin-prohibited");
        run("nft add rule inet firewalld other ct state invalid drop");
        let result = node.apply();
        let firewall: Vec<&str> = result
            .problems
            .iter()
            .filter(|problem| problem.step == Step::Firewall)
            .map(|problem| problem.text.as_str())
            .collect();
        assert_eq!(firewall.len(), 1, "{result:?}");
        assert!(firewall[0].contains("inet firewalld filter_FORWARD"), "{firewall:?}");
        assert!(firewall[0].contains("--add-source=CIDR"), "{firewall:?}");
    });
}

#[test]
fn host_ports_are_restored_from_the_records_of_pods() {
    inside(|| {
        let mut node = Node::new();
        let ranges = [PodRange::new("10.244.1.0/24".parse().unwrap()).unwrap()];
        let store = AddressStore::open(&node.path("state"), &ranges, &[]).unwrap();
        let new = NewAttachment {
            key: AttachmentKey::new("container", "eth0").unwrap(),
            netns: Path::new("/proc/self/ns/net").to_owned(),
            host_interface: "lo".to_owned(),
            host_ports: vec![serde_json::from_str(r#"{"hostPort": 8080, "containerPort": 80}"#).unwrap()],
        };
        let attachment = store.complete(store.add(&new).unwrap()).unwrap();
        let result = node.apply();
        assert!(result.is_ready && !result.host_port_changes.is_empty(), "{result:?}");
        let expected = format!("tcp . 8080 : {} . 80", attachment.addresses[0].addr());
        let listed = || run("nft list table inet portcullis-host-ports");
        assert!(listed().contains(&expected), "{}", listed());
        run("nft flush ruleset");
        node.apply();
        assert!(listed().contains(&expected), "{}", listed());
        // A record that cannot be read takes no port away.
        fs::write(node.path("state/attachments/damaged@eth0"), "{").unwrap();
        store.remove(&new.key).unwrap();
        node.apply();
        assert!(listed().contains(&expected), "{}", listed());
        fs::remove_file(node.path("state/attachments/damaged@eth0")).unwrap();
        node.apply();
        assert!(!listed().contains("8080"), "{}", listed());
    });
}

#[test]
fn addresses_of_pods_that_ended_without_del_are_returned() {
    inside(|| {
        let mut node = Node::new();
        let ranges = [PodRange::new("10.244.1.0/24".parse().unwrap()).unwrap()];
        let store = AddressStore::open(&node.path("state"), &ranges, &[]).unwrap();
        for (container, netns, port) in
            [("running", "/proc/self/ns/net", 81), ("ended", "/run/netns/none", 82)]
        {
            let mapping = format!(r#"{{"hostPort": {port}, "containerPort": 80}}"#);
            let new = NewAttachment {
                key: AttachmentKey::new(container, "eth0").unwrap(),
                netns: Path::new(netns).to_owned(),
                host_interface: "none0".to_owned(),
                host_ports: vec![serde_json::from_str(&mapping).unwrap()],
            };
            store.complete(store.add(&new).unwrap()).unwrap();
        }
        // An `ADD` may not be over: nothing is returned within a minute.
        assert_eq!(node.apply().leaked_attachments, 0);
        let listed = || run("nft list table inet portcullis-host-ports");
        assert!(listed().contains("tcp . 82 :"), "{}", listed());
        for container in ["running", "ended"] {
            let path = node.path("state/attachments").join(format!("{container}@eth0"));
            let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            record["created"] = (record["created"].as_u64().unwrap() - 120).into();
            fs::write(&path, record.to_string()).unwrap();
        }
        fs::write(node.path("state/attachments/README"), "x").unwrap();
        let result = node.apply();
        assert_eq!(result.leaked_attachments, 1);
        assert!(result.is_ready);
        assert_eq!(Node::problems(&result), [(Step::Addresses, Severity::Warning)], "{result:?}");
        assert!(
            result.problems[0].text.contains("state/attachments/README: is not an attachment"),
            "{result:?}"
        );
        assert!(listed().contains("tcp . 81 :") && !listed().contains("tcp . 82 :"), "{}", listed());
        let left = store.attachments().unwrap().attachments;
        assert_eq!(
            left.iter().map(|attachment| attachment.key.container_id()).collect::<Vec<_>>(),
            ["running"]
        );
    });
}

#[test]
fn cleanup_finds_and_removes_everything_in_the_configured_folders() {
    inside(|| {
        let mut node = Node::new();
        let installation = Installation {
            bin_dir: node.path("bin"),
            conf_dir: node.path("net.d"),
            state_dir: node.path("state"),
        };
        assert_eq!(cleanup::remove(&installation, true).removed, []);
        assert_eq!(cleanup::find_leftovers(&installation), [""; 0]);
        run("iptables-nft -P FORWARD DROP");
        assert!(node.apply().is_ready);
        let objects = |cleanup: NodeNetworkCleanup| {
            assert!(cleanup.left.is_empty(), "{:?}", cleanup.left);
            cleanup.removed.into_iter().map(|removed| removed.object).collect::<Vec<_>>()
        };
        // The default folders belong to the node, and this test runs in another network namespace than PID 1.
        let rules = [
            "rules for traffic of pods in iptables (nft), chain FORWARD".to_owned(),
            "table inet portcullis-pod-network".to_owned(),
            "table inet portcullis-pod-sources".to_owned(),
        ];
        assert_eq!(objects(cleanup::remove(&Installation::default(), true)), rules);
        let files = ["net.d/10-portcullis.conflist", "bin/loopback", "bin/portcullis"]
            .map(|name| node.path(name).display().to_string());
        let expected = [&files[..], &rules].concat();
        assert_eq!(objects(cleanup::remove(&installation, true)), expected);
        assert_eq!(cleanup::find_leftovers(&installation), [&files[..], &rules[1..]].concat());
        assert_eq!(objects(cleanup::remove(&installation, false)), expected);
        assert_eq!(objects(cleanup::remove(&installation, false)), [""; 0]);
        assert_eq!(cleanup::find_leftovers(&installation), [""; 0]);
        assert!(!run("nft list ruleset").to_lowercase().contains("portcullis"));
        assert!(!node.path("net.d/10-portcullis.conflist").exists() && node.path("state").exists());
    });
}
