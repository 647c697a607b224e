//! On a kernel without the nf_tables features that nftables mode needs, the daemon exits and names the missing feature and a
//! mode that works.

#[path = "../netlink/tests/namespace/mod.rs"]
mod namespace;

use std::process::Command;

use portcullis_machines::uml;

/// User-mode Linux has nf_tables, but not for IPv4.
#[test]
fn missing_ip_family_is_reported() {
    uml::inside(|| namespace::inside(run_daemon));
}

fn run_daemon() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let output = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["--mode=nftables", "--once", "--manifests"])
        .arg(folder.path())
        .output()
        .expect("the binary is built");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.matches("Operation not supported").count(), 1, "reported once: {stderr}");
    for word in ["nftables mode needs", "CONFIG_NF_TABLES", "--mode=iptables"] {
        assert!(stderr.contains(word), "{word} is not in: {stderr}");
    }
}
