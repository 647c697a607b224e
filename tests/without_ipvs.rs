//! On a kernel without IPVS, the daemon exits with an error that names the missing modules and alternatives.

#[path = "../netlink/tests/namespace/mod.rs"]
mod namespace;

use std::process::Command;

#[test]
fn the_error_names_the_missing_modules() {
    if std::fs::exists("/proc/net/ip_vs").unwrap_or(false) {
        let why = "this kernel has ip_vs loaded";
        assert!(std::env::var_os("CI").is_none(), "{why}");
        return eprintln!("not tested: {why}");
    }
    namespace::inside(start_without_ipvs);
}

fn start_without_ipvs() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let tools = tools(folder.path());
    for kind in ["--once", "--init-only"] {
        let output = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["--mode=ipvs", "--ipvs-scheduler=wlc", kind, "--manifests"])
            .arg(folder.path())
            // PATH has no modprobe, as in a container without it.
            .env("PATH", &tools)
            .output()
            .expect("the binary is built");
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{kind}: {log}");
        let expected = [
            "modprobe -a ip_vs ip_vs_wlc nf_conntrack",
            "--mode=nftables",
            "--mode=iptables",
            "cannot be run",
        ];
        for word in expected {
            assert!(log.contains(word), "{kind}: {word} is not in: {log}");
        }
    }
}

/// Returns a PATH with iptables only.
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
