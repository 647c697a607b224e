//! Tests of changes to the `--config` file while the daemon runs.

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

/// Replaces a file atomically, as editors do.
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
fn an_invalid_file_is_reported_and_a_changed_configuration_ends_the_daemon() {
    namespace::inside(|| {
        let node = Node::new();
        let path = node.folder.path().join("config.yaml");
        fs::write(&path, configuration("mode: iptables\n")).unwrap();
        let mut daemon = start(&node, &path);

        replace(&path, &configuration("mode: iptables\nconntrack: {min: many}\n"));
        daemon.wait_until("the error is reported", is_unusable);
        let health = get(HEALTH, "/healthz").unwrap();
        assert!(health.contains(" 200 ") && health.contains("conntrack.min"), "{health}");
        let log = daemon.log();
        assert!(
            log.contains("conntrack.min") && log.contains("keeping the configuration of the start"),
            "{log}"
        );

        fs::remove_file(&path).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        assert!(daemon.is_running() && is_unusable(), "a removed file must not end the daemon");

        replace(&path, &configuration("mode: iptables\n# A comment.\n"));
        daemon.wait_until("the file is valid again", || !is_unusable());
        assert!(!get(HEALTH, "/healthz").unwrap().contains("warning"));

        replace(&path, &configuration("mode: iptables\nconntrack: {min: 4}\n"));
        let status = daemon.wait_for_exit();
        let log = daemon.log();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("config.yaml was changed") && log.contains("keeping the rules"), "{log}");
    });
}

/// The kubelet replaces all files of a ConfigMap at once, by a symbolic link.
#[test]
fn a_replaced_config_map_ends_the_daemon() {
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
        assert_eq!(daemon.wait_for_exit().code(), Some(1), "{}", daemon.log());
        assert!(daemon.log().contains("was changed"), "{}", daemon.log());
    });
}
