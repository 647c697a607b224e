//! A network manager that manages the interface of the overlay, although it should not: systemd-networkd itself.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use super::cluster::{Cluster, Families};
use super::{assert_connected, traffic};

const NETWORKD: &str = "/lib/systemd/systemd-networkd";

/// Starts systemd-networkd as root of a container would: without D-Bus, and with a read-only `/sys`, for which it expects no udev.
const SCRIPT: &str = r#"
mkdir -p /run/systemd
mount -t tmpfs none /run/systemd
mkdir /run/systemd/network
printf '%s' "$2" >/run/systemd/network/10-test.network
mount -o remount,bind,ro /sys
SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console exec "$1"
"#;

/// A user's file that matches too much, and removes what others configured.
const FILE: &str = "[Match]\nName=pc*\n[Network]\nDHCP=no\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n";

/// systemd-networkd on a node.
struct Networkd {
    process: Child,
    log: PathBuf,
}

impl Networkd {
    fn start(cluster: &Cluster, node: usize) -> Self {
        let log = cluster.path("networkd.log");
        let process = cluster
            .command(node, "sh")
            .args(["-c", SCRIPT, "sh", NETWORKD, FILE])
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Networkd { process, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns how many times it has configured the link of the overlay.
    fn configured(&self) -> usize {
        self.log().matches("pc-vxlan: State changed: configuring -> configured").count()
    }
}

impl Drop for Networkd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn networkd_that_manages_the_overlay_does_not_interrupt_it() {
    let cluster = Cluster::new("vxlan", Families::Dual, 2);
    cluster.wait_ready();
    let wanted = cluster.forwarding_state(0);
    let networkd = Networkd::start(&cluster, 0);
    let times = [
        "it takes over a link with addresses and routes",
        "the link is new, and gets these while networkd configures it",
        "again",
    ];
    for (number, what) in times.iter().enumerate() {
        if number > 0 {
            cluster.node(0).ip("link del pc-vxlan");
        }
        let explain = || format!("{what}: {}\n---\n{}", networkd.log(), cluster.log(0));
        traffic::wait_until("networkd configures the link", || networkd.configured() > number, explain);
        traffic::wait_until("the overlay is repaired", || cluster.forwarding_state(0) == wanted, explain);
        assert_connected(&cluster, &[0, 1]);
        // It does not come and go.
        assert_eq!(
            (networkd.configured(), cluster.forwarding_state(0)),
            (number + 1, wanted.clone()),
            "{what}"
        );
    }
}
