//! `portcullis lab run`, as anyone would run it: nothing of its table is otherwise than it must be.

use std::path::Path;
use std::process::{Command, Stdio};

use portcullis_lab::uml;

/// Clusters that take little time: few of their probes are lost.
const CLUSTERS: [&str; 3] = ["demo", "lab/web.yaml", "lab/reused-address.yaml"];

fn all_is_as_it_must_be(mode: &str) {
    for cluster in CLUSTERS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(cluster);
        let run = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["lab", "run", "--mode", mode])
            .arg(folder)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let table = String::from_utf8_lossy(&run.stdout);
        let errors = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{cluster}: {}\n{table}\n{errors}", run.status);
        assert!(table.trim_end().ends_with("all as it must be"), "{cluster}:\n{table}");
        assert!(table.lines().filter(|line| line.starts_with('✓')).count() >= 8, "{cluster}:\n{table}");
    }
}

#[test]
fn the_table_of_iptables() {
    all_is_as_it_must_be("iptables");
}

#[test]
fn the_table_of_nftables() {
    all_is_as_it_must_be("nftables");
}

#[test]
fn the_table_of_ipvs() {
    uml::inside(|| all_is_as_it_must_be("ipvs"));
}
