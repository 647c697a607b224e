//! On a kernel that has no IPVS, the daemon ends and says what is missing and which way is out.

#[path = "../netlink/tests/namespace/mod.rs"]
mod namespace;

use std::process::Command;

#[test]
fn a_kernel_without_ipvs_is_told_by_its_modules() {
    if std::fs::exists("/proc/net/ip_vs").unwrap_or(false) {
        let why = "this kernel has ip_vs loaded, so that nothing is missing here";
        assert!(std::env::var_os("CI").is_none(), "{why}");
        return eprintln!("not tested: {why}");
    }
    namespace::inside(ask);
}

fn ask() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let tools = tools(folder.path());
    for kind in ["--once", "--init-only"] {
        let output = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["--mode=ipvs", "--ipvs-scheduler=wlc", kind, "--manifests"])
            .arg(folder.path())
            // No modprobe to be found, as in a container without it.
            .env("PATH", &tools)
            .output()
            .expect("the binary is built");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{kind}: {said}");
        let expected = [
            "modprobe -a ip_vs ip_vs_wlc nf_conntrack",
            "--mode=nftables",
            "--mode=iptables",
            "cannot be run",
        ];
        for word in expected {
            assert!(said.contains(word), "{kind}: {word} is not in: {said}");
        }
    }
}

/// A search path with iptables and nothing else.
fn tools(folder: &std::path::Path) -> String {
    let tools = folder.join("tools");
    std::fs::create_dir(&tools).expect("the folder can be written to");
    for base in ["iptables", "ip6tables"] {
        for action in ["", "-save", "-restore"] {
            let link = tools.join(format!("{base}{action}"));
            std::os::unix::fs::symlink("/usr/sbin/xtables-nft-multi", link).expect("a link");
        }
    }
    tools.display().to_string()
}
