//! Parts about the kernel: version, modules, settings and statistics of the network.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::part::{Part, PartBuffer, PartError};
use crate::bounded_file;

/// The largest file of /proc, in bytes.
const MAX_FILE: usize = 8 << 20;

/// Files of /proc, and folders whose files are all read, by part. A file that does not exist belongs to a feature that the kernel does
/// not have.
const PARTS: [(&str, &str, &[&str]); 4] = [
    (
        "kernel/version.txt",
        "versions of the kernel and of the distribution",
        &[
            "/proc/sys/kernel/ostype",
            "/proc/sys/kernel/osrelease",
            "/proc/sys/kernel/version",
            "/etc/os-release",
        ],
    ),
    ("kernel/modules.txt", "loaded kernel modules", &["/proc/modules"]),
    (
        "kernel/network-statistics.txt",
        "statistics and addresses of the network namespace",
        &[
            "/proc/net/dev",
            "/proc/net/snmp",
            "/proc/net/snmp6",
            "/proc/net/netstat",
            "/proc/net/sockstat",
            "/proc/net/softnet_stat",
            "/proc/net/stat/nf_conntrack",
            "/proc/net/route",
            "/proc/net/ipv6_route",
            "/proc/net/fib_trie",
            "/proc/net/if_inet6",
            "/proc/net/ip_tables_names",
            "/proc/net/ip6_tables_names",
            "/proc/net/ip_vs_stats",
        ],
    ),
    (
        "kernel/pressure.txt",
        "memory, load and processor time",
        &["/proc/meminfo", "/proc/loadavg", "/proc/uptime", "/proc/pressure/cpu", "/proc/pressure/memory"],
    ),
];

/// Folders of settings. None of them has secrets: `net.ipv6.conf.*.stable_secret`, which is one, is left out.
const SYSCTL_FOLDERS: [&str; 8] = [
    "/proc/sys/net/core",
    "/proc/sys/net/ipv4",
    "/proc/sys/net/ipv4/conf",
    "/proc/sys/net/ipv4/vs",
    "/proc/sys/net/ipv6/conf",
    "/proc/sys/net/netfilter",
    "/proc/sys/net/bridge",
    "/proc/sys/net",
];

/// Returns the parts.
pub(super) fn parts() -> Vec<Part> {
    let files = |(name, description, paths): (&'static str, &'static str, &'static [&'static str])| {
        Part::new(name, description, move |out| write_files(paths, out))
    };
    let mut parts: Vec<Part> = PARTS.into_iter().map(files).collect();
    parts.push(Part::new("kernel/sysctls.txt", "settings of the kernel's network", write_sysctls));
    parts
}

fn write_files(paths: &[&str], out: &mut PartBuffer) -> Result<(), PartError> {
    let (mut found, mut failed) = (0, Vec::new());
    for path in paths {
        match bounded_file::read(Path::new(path), MAX_FILE) {
            Ok(bytes) => {
                found += 1;
                writeln!(out, "==> {path} <==\n{}", String::from_utf8_lossy(&bytes).trim_end())?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => failed.push(format!("{path}: {error}")),
        }
    }
    match (found, failed.is_empty()) {
        (0, true) => Err(PartError::NotApplicable(format!("this kernel has no {}", paths.join(", ")))),
        (_, true) => Ok(()),
        (_, false) => Err(PartError::Failed(failed.join("; "))),
    }
}

fn write_sysctls(out: &mut PartBuffer) -> Result<(), PartError> {
    let mut found = 0;
    for folder in SYSCTL_FOLDERS {
        for path in settings_in(Path::new(folder)) {
            let is_secret = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().contains("secret") || name == "tcp_fastopen_key");
            let Ok(name) = path.strip_prefix("/proc/sys") else { continue };
            let Ok(value) = bounded_file::read_to_string(&path, MAX_FILE) else { continue };
            if !is_secret {
                found += 1;
                let name =
                    name.to_string_lossy().replace('.', "\u{1}").replace('/', ".").replace('\u{1}', "/");
                writeln!(out, "{name} = {}", value.trim())?;
            }
        }
    }
    if found == 0 { Err(PartError::failed("no setting can be read")) } else { Ok(()) }
}

/// Returns the settings in a folder, and in a folder of interfaces those of each interface.
fn settings_in(folder: &Path) -> Vec<PathBuf> {
    let list = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort_unstable();
        paths
    };
    let of_interfaces = folder.ends_with("conf");
    let paths = list(folder).into_iter().flat_map(|path| match path.is_dir() {
        true if of_interfaces => list(&path),
        true => Vec::new(),
        false => vec![path],
    });
    paths.collect()
}
