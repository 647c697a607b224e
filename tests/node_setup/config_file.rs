//! The file of `--config` changes while the daemon runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use crate::daemon::{Daemon, HEALTH, METRICS, Node};
use crate::http::get;
use crate::namespace;

fn configuration(more: &str) -> String {
    format!("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n{more}")
}

/// Writes it as a whole, as editors do.
fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    fs::write(&fresh, text).unwrap();
    fs::rename(fresh, path).unwrap();
}

fn is_unusable() -> bool {
    get(METRICS, "/metrics").is_some_and(|text| text.contains("\nportcullis_configuration_unusable 1\n"))
}

fn start(node: &Node, path: &Path) -> Daemon {
    let mut daemon = node.start(&["--config", path.to_str().unwrap()]);
    daemon.wait_healthy();
    daemon
}

#[test]
fn a_file_that_cannot_be_used_is_told_and_one_that_says_something_else_ends_it() {
    namespace::inside(|| {
        let node = Node::new();
        let path = node.folder.path().join("config.yaml");
        fs::write(&path, configuration("mode: iptables\n")).unwrap();
        let mut daemon = start(&node, &path);

        replace(&path, &configuration("mode: iptables\nconntrack: {min: many}\n"));
        daemon.wait_until("the mistake is told", is_unusable);
        let health = get(HEALTH, "/healthz").unwrap();
        assert!(health.contains(" 200 ") && health.contains("conntrack.min"), "{health}");
        let log = daemon.log();
        assert!(log.contains("conntrack.min") && log.contains("holds on"), "{log}");

        fs::remove_file(&path).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        assert!(daemon.runs() && is_unusable(), "a file that is gone is no reason to end");

        replace(&path, &configuration("mode: iptables\n# Somebody's remark.\n"));
        daemon.wait_until("it is well again", || !is_unusable());
        assert!(!get(HEALTH, "/healthz").unwrap().contains("warning"));

        replace(&path, &configuration("mode: iptables\nconntrack: {min: 4}\n"));
        let status = daemon.ended();
        let log = daemon.log();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("config.yaml was changed") && log.contains("the rules stay"), "{log}");
    });
}

/// As the kubelet replaces what is in a ConfigMap: all files at once, by one link.
#[test]
fn a_config_map_is_replaced_as_a_whole() {
    namespace::inside(|| {
        let node = Node::new();
        let mounted = node.folder.path().join("mounted");
        let version = |name: &str, more: &str| {
            fs::create_dir_all(mounted.join(name)).unwrap();
            fs::write(mounted.join(name).join("config.conf"), configuration(more)).unwrap();
            symlink(name, mounted.join("..data_tmp")).unwrap();
            fs::rename(mounted.join("..data_tmp"), mounted.join("..data")).unwrap();
        };
        version("..2026_1", "bindAddress: 0.0.0.0\n");
        symlink("..data/config.conf", mounted.join("config.conf")).unwrap();
        let mut daemon = start(&node, &mounted.join("config.conf"));

        version("..2026_2", "bindAddress: 0.0.0.0\nclusterCIDR: 10.244.0.0/16\n");
        assert_eq!(daemon.ended().code(), Some(1), "{}", daemon.log());
        assert!(daemon.log().contains("was changed"), "{}", daemon.log());
    });
}
