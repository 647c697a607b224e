//! Tests of the daemon as a user other than root: with capabilities from its file, as in a container, and without those that
//! it requires.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use crate::daemon::Node;
use crate::namespace::{self, run};

/// A Service without endpoints, which has rules in every mode.
const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: default}, spec: {clusterIP: \
    10.96.0.10, ports: [{port: 80}]}}";

/// Returns a node whose files other users may read, with a copy of the program that has these file capabilities.
fn node_with_file_capabilities(capabilities: &str) -> Node {
    let node = Node::new();
    let folder = node.folder.path();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.join("manifests/service.yaml"), SERVICE).unwrap();
    let program = folder.join("portcullis");
    fs::copy(env!("CARGO_BIN_EXE_portcullis"), &program).unwrap();
    run(&format!("setcap {capabilities} {}", program.display()));
    node
}

/// Runs `--once` as a user other than root, like a container runtime: with the capabilities `bounding`, of which none is
/// ambient, and without new privileges.
fn once(node: &Node, bounding: &str, path: Option<&Path>, arguments: &[&str]) -> Output {
    let folder = node.folder.path();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=10256", "--regid=10256", "--clear-groups", "--no-new-privs", "--inh-caps=-all"]);
    command.args(["--ambient-caps=-all", &format!("--bounding-set=-all{bounding}")]);
    command.arg(folder.join("portcullis")).arg("--manifests").arg(folder.join("manifests"));
    command.args(["--hostname-override=node-a", "--once"]).args(arguments);
    if let Some(path) = path {
        command.env("PATH", format!("{}:{}", path.display(), std::env::var("PATH").unwrap()));
    }
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Makes `iptables` a variant of the tools.
fn tools(node: &Node, program: &str) {
    for tool in
        ["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"]
    {
        symlink(program, node.folder.path().join(tool)).unwrap();
    }
}

/// The iptables tools get the capability from the daemon.
#[test]
fn file_capabilities_serve_services_in_a_container_of_another_user() {
    namespace::inside(|| {
        let node = node_with_file_capabilities("cap_net_admin=p");
        let nftables = once(&node, ",+net_admin", None, &["--mode=nftables", "--network-policy"]);
        assert_eq!(nftables.status.code(), Some(0), "{}", stderr(&nftables));
        let rules = run("nft list ruleset");
        assert!(rules.contains("10.96.0.10") && rules.contains("portcullis-policy"), "{rules}");

        tools(&node, "/usr/sbin/xtables-nft-multi");
        let iptables = once(&node, ",+net_admin", Some(node.folder.path()), &["--mode=iptables"]);
        assert_eq!(iptables.status.code(), Some(0), "{}", stderr(&iptables));
        let rules = run("iptables-nft-save -t filter");
        assert!(rules.contains("10.96.0.10/32"), "{rules}");
        // The program of the image also runs without the capability.
        let version = once(&node, "", None, &["--version"]);
        assert_eq!(version.status.code(), Some(0), "{}", stderr(&version));
    });
}

#[test]
fn missing_privileges_are_named() {
    namespace::inside(|| {
        let node = node_with_file_capabilities("cap_net_admin=p");
        for mode in ["--mode=nftables", "--mode=iptables", "--mode=ipvs"] {
            let output = once(&node, "", None, &[mode]);
            assert_eq!(output.status.code(), Some(2), "{mode}: {}", stderr(&output));
            assert!(stderr(&output).contains("this process has no CAP_NET_ADMIN"), "{}", stderr(&output));
        }
        let output = once(&node, ",+net_admin", None, &["--mode=ipvs"]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("this process has no CAP_NET_RAW"), "{}", stderr(&output));
        tools(&node, "/usr/sbin/xtables-legacy-multi");
        let output = once(&node, ",+net_admin,+net_raw", Some(node.folder.path()), &["--mode=iptables"]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("the legacy variant, which requires root"), "{}", stderr(&output));
        assert_eq!(run("nft list ruleset"), "", "nothing was written");
    });
}

/// Sysctls and modules for policies are part of the step that runs as root.
#[test]
fn init_only_passes_bridged_packets_to_policies() {
    namespace::inside(|| {
        let setting = "/proc/thread-self/root/proc/sys/net/bridge/bridge-nf-call-iptables";
        if !Path::new(setting).exists() {
            // The module cannot be loaded by all machines that run this test; then the log says so.
            let output = Node::new().program(&["--network-policy", "--init-only"]).output().unwrap();
            let loaded = Path::new(setting).exists();
            assert!(
                loaded || stderr(&output).contains("this kernel has no br_netfilter"),
                "{}",
                stderr(&output)
            );
            return;
        }
        fs::write(setting, "0").unwrap();
        let output = Node::new().program(&["--network-policy", "--init-only"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(fs::read_to_string(setting).unwrap().trim(), "1");
    });
}
