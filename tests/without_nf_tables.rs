//! On a kernel whose nf_tables lack what nftables mode needs, the daemon ends and says what is missing and which mode works.

#[path = "../netlink/tests/namespace/mod.rs"]
mod namespace;

use std::process::Command;

use portcullis_lab::uml;

/// User-mode Linux has nf_tables, but not for IPv4.
#[test]
fn a_kernel_without_ip_tables_is_told_what_it_lacks() {
    uml::inside(|| namespace::inside(ask));
}

fn ask() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let output = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["--mode=nftables", "--once", "--manifests"])
        .arg(folder.path())
        .output()
        .expect("the binary is built");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.matches("Operation not supported").count(), 1, "told once: {said}");
    for word in ["nftables mode needs", "CONFIG_NF_TABLES", "--mode=iptables"] {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
}
