//! Tests with the unchanged command lines that kubeadm and k3s give kube-proxy.

use std::fs;
use std::process::Command;

use crate::cluster::{rules, server};
use crate::daemon::{METRICS, Node, program};
use crate::http::get;
use crate::namespace;

/// Asserts that the program serves the Service in iptables mode, as both configure, and returns the rules.
fn assert_serves(node: &Node, command: Command) -> String {
    let mut daemon = node.spawn(command);
    daemon.wait_until("it serves", || rules().contains("KUBE-SERVICES -d "));
    daemon.wait_healthy();
    let rules = rules();
    assert!(rules.contains("-A KUBE-SERVICES -d 10.96.0.10/32"), "{rules}\n{}", daemon.log());
    assert!(rules.contains("--to-destination 10.244.0.9:8080"), "{rules}");
    let mode = get(METRICS, "/proxyMode").unwrap();
    assert!(mode.ends_with("\r\n\r\niptables"), "{mode}");
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
    rules
}

#[test]
fn kubeadm_command_line() {
    namespace::inside(|| {
        let node = Node::new();
        let server = server("10.244.0.9");
        let folder = node.folder.path();
        // The ConfigMap has both files and is mounted as a whole.
        server.kubeconfig(folder, "token");
        let kubeconfig = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let kubeconfig = kubeconfig.into_iter().find(|path| path.is_file()).unwrap();
        let config = include_str!("../../fixtures/command-lines/kubeadm.conf");
        let mounted = "/var/lib/kube-proxy/kubeconfig.conf";
        assert!(config.contains(mounted));
        let path = folder.join("config.conf");
        fs::write(&path, config.replace(mounted, &kubeconfig.display().to_string())).unwrap();
        let mut command = kube_proxy(&node);
        command.arg(format!("--config={}", path.display())).arg("--hostname-override=node-a");
        let rules = assert_serves(&node, command);
        assert!(rules.contains("! -s 10.244.0.0/16"), "its clusterCIDR: {rules}");
    });
}

#[test]
fn k3s_command_line() {
    namespace::inside(|| {
        let node = Node::new();
        let server = server("10.244.0.9");
        let kubeconfig = server.kubeconfig(node.folder.path(), "token");
        let arguments = include_str!("../../fixtures/command-lines/k3s");
        let recorded_path = "/var/lib/rancher/k3s/agent/kubeproxy.kubeconfig";
        assert!(arguments.contains(recorded_path));
        let arguments = arguments.replace(recorded_path, &kubeconfig.display().to_string());
        let mut command = kube_proxy(&node);
        command.args(arguments.lines());
        let rules = assert_serves(&node, command);
        assert!(rules.contains("! -s 10.42.0.0/16"), "its --cluster-cidr: {rules}");
    });
}

/// Returns the program under the name `kube-proxy`, as in the image.
fn kube_proxy(node: &Node) -> Command {
    let link = node.folder.path().join("manifests/kube-proxy");
    std::os::unix::fs::symlink(program().get_program(), &link).unwrap();
    let mut command = Command::new(link);
    command.env_remove("RUST_LOG");
    command
}
