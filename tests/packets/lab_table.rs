//! `portcullis lab run` as a user runs it: all expectations are met.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::mode::Mode;

/// Clusters with few timeouts, which are quick to probe.
const CLUSTERS: [&str; 3] = ["demo", "lab/web.yaml", "lab/reused-address.yaml"];

pub(crate) fn all_expectations_are_met(mode: Mode) {
    for cluster in CLUSTERS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(cluster);
        let run = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["lab", "run", "--mode", mode.name()])
            .arg(folder)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let table = String::from_utf8_lossy(&run.stdout);
        let errors = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{cluster}: {}\n{table}\n{errors}", run.status);
        assert!(table.trim_end().ends_with("all expectations met"), "{cluster}:\n{table}");
        assert!(table.lines().filter(|line| line.starts_with('✓')).count() >= 8, "{cluster}:\n{table}");
    }
}
