//! Network managers beside the pod network: systemd-networkd and NetworkManager themselves, on a node.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use portcullis_machines::tools;

use super::cluster::{Cluster, Families};
use super::{assert_connected, traffic};

/// Starts systemd-networkd without D-Bus. Both managers expect no udev if `/sys` is read-only.
const NETWORKD: &str = r#"
mount -t tmpfs none /run
mkdir -p /run/systemd/network
printf '%s' "$1" >/run/systemd/network/10-test.network
mount -o remount,bind,ro /sys
SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console exec /lib/systemd/systemd-networkd
"#;

/// Starts NetworkManager with a D-Bus of its own.
const NETWORK_MANAGER: &str = r#"
for folder in /run /var/lib; do mount -t tmpfs none $folder; done
mkdir -p /run/dbus /run/configuration /var/lib/NetworkManager
printf '%s' "$1" >/run/configuration/test.conf
mount -o remount,bind,ro /sys
cat >/run/dbus/bus.conf <<'END'
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy></busconfig>
END
dbus-daemon --config-file=/run/dbus/bus.conf --nofork &
while ! [ -S /run/dbus/system_bus_socket ]; do sleep 0.05; done
# Unpacked, with the libraries that this machine lacks.
LD_LIBRARY_PATH=$(echo "$2"/usr/lib/*-linux-gnu)
export LD_LIBRARY_PATH PATH="$2/usr/sbin:$2/usr/bin:$PATH"
NetworkManager --no-daemon --config=/run/configuration/test.conf --config-dir=/run/configuration >&2 &
while sleep 0.2; do nmcli --terse --fields DEVICE,STATE device 2>&1 | sed 's/^/device /' >&2; done
"#;

/// Returns the folder of the unpacked NetworkManager.
fn network_manager() -> PathBuf {
    let program = tools::path("network-manager/usr/sbin/NetworkManager");
    program.ancestors().nth(3).unwrap().to_owned()
}

/// A network manager on a node. Its processes end with it.
struct Manager {
    process: Child,
    log: PathBuf,
}

impl Manager {
    fn start(cluster: &Cluster, node: usize, script: &str, configuration: &str) -> Self {
        let log = cluster.path("network-manager.log");
        let process = cluster
            .command(node, "setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ])
            .args(["sh", "-ec", script, "sh", configuration])
            .arg(network_manager())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Manager { process, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns how many times its log has a text.
    fn count(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a manager on a node with pods, and deletes the interface of the overlay twice: the manager sees a new one, whose addresses and
/// routes the daemon adds at the same time. `seen` is what the manager logs about an interface of the overlay that it has handled.
fn run_beside(script: &str, configuration: &str, seen: &str) {
    let cluster = Cluster::new("vxlan", Families::Dual, 2);
    cluster.wait_ready();
    let wanted = cluster.forwarding_state(0);
    let manager = Manager::start(&cluster, 0, script, configuration);
    for times in 0..3 {
        let before = manager.count(seen);
        if times > 0 {
            cluster.node(0).ip("link del pc-vxlan");
        }
        let explain = || {
            format!(
                "{times}: {wanted}\n---\n{}\n---\n{}",
                cluster.forwarding_state(0),
                manager.log() + &cluster.log(0)
            )
        };
        traffic::wait_until("the manager handles the link", || manager.count(seen) > before, explain);
        traffic::wait_until("the overlay is repaired", || cluster.forwarding_state(0) == wanted, explain);
        assert_connected(&cluster, &[0, 1]);
        assert_eq!(cluster.forwarding_state(0), wanted, "it stays: {}", explain());
    }
}

/// A user's file that matches too much, and removes what others configured.
#[test]
fn networkd_that_manages_the_overlay_does_not_interrupt_it() {
    let file = "[Match]\nName=pc*\n[Network]\nDHCP=no\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n";
    run_beside(NETWORKD, file, "pc-vxlan: State changed: configuring -> configured");
}

#[test]
fn network_manager_leaves_the_overlay_alone() {
    run_beside(
        NETWORK_MANAGER,
        "[main]\nplugins=keyfile\nno-auto-default=*\n",
        "device pc-vxlan:connected (externally)",
    );
}

/// As docs/pod-network.md recommends.
#[test]
fn network_manager_does_not_manage_what_its_configuration_excludes() {
    let configuration =
        "[main]\nplugins=keyfile\nno-auto-default=*\n[keyfile]\nunmanaged-devices=interface-name:pc*\n";
    run_beside(NETWORK_MANAGER, configuration, "device pc-vxlan:unmanaged");
}
