//! Installation of the plugin and its configuration, in temporary folders.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use portcullis_cluster::Name;
use portcullis_podnet::installation::{ConfigurationList, Installation, NOT_READY, is_plugin};
use portcullis_podnet::{PodNetworkMode, PodNetworkPlan, Wiring};
use tempfile::TempDir;

/// Returns the folders of an installation, which do not exist yet.
fn installation() -> (TempDir, Installation) {
    let root = tempfile::tempdir().unwrap();
    let folder = |name: &str| root.path().join(name);
    let installation = Installation {
        bin_dir: folder("opt/cni/bin"),
        conf_dir: folder("etc/cni/net.d"),
        state_dir: folder("run/state"),
    };
    (root, installation)
}

fn list(mtu: u32) -> ConfigurationList {
    let plan = PodNetworkPlan {
        node: Name::new("node-1"),
        mode: PodNetworkMode::HostGw,
        wiring: Wiring::Ptp,
        pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
        cluster_pod_cidrs: Arc::new(BTreeSet::new()),
        mtu,
        uplinks: Vec::new(),
    };
    ConfigurationList::new(&plan, Path::new("/run/portcullis/pod-network"))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_plugin_is_replaced_only_by_another_version() {
    let (root, installation) = installation();
    let source = root.path().join("binary");
    fs::write(&source, vec![1; 200_000]).unwrap();
    assert!(installation.install_plugin(&source).unwrap());
    let inode = || fs::metadata(installation.plugin()).unwrap().ino();
    let first = inode();
    assert!(!installation.install_plugin(&source).unwrap());
    assert_eq!((inode(), mode(&installation.plugin())), (first, 0o755));
    // Another version of the same size, one of another size, a damaged mode, and a link in place of a file.
    let mut other = vec![1; 200_000];
    other[199_999] = 2;
    fs::write(&source, other).unwrap();
    assert!(installation.install_plugin(&source).unwrap());
    fs::write(&source, "short").unwrap();
    assert!(installation.install_plugin(&source).unwrap());
    fs::set_permissions(installation.plugin(), Permissions::from_mode(0o600)).unwrap();
    assert!(installation.install_plugin(&source).unwrap());
    fs::remove_file(installation.plugin()).unwrap();
    symlink(&source, installation.plugin()).unwrap();
    assert!(installation.install_plugin(&source).unwrap());
    assert!(fs::symlink_metadata(installation.plugin()).unwrap().is_file());
    let installed = fs::read(installation.plugin()).unwrap();
    assert!(installed.starts_with(b"short\n"), "{installed:?}");
    let plugins = [installation.plugin(), source].map(|path| is_plugin(&path).unwrap());
    assert_eq!(plugins, [true, false], "the copy has a marker");
    assert_eq!(files(&installation.bin_dir), ["portcullis"], "no temporary files");
}

#[test]
fn the_plugin_loopback_is_installed_unless_there_is_one() {
    let (root, installation) = installation();
    let source = root.path().join("binary");
    fs::write(&source, "binary").unwrap();
    installation.install_plugin(&source).unwrap();
    assert_eq!(
        [installation.install_loopback().unwrap(), installation.install_loopback().unwrap()],
        [true, false]
    );
    let loopback = installation.bin_dir.join("loopback");
    assert_eq!(fs::read(&loopback).unwrap(), fs::read(installation.plugin()).unwrap());
    assert_eq!(installation.remove(true).0, [loopback.clone(), installation.plugin()]);
    assert_eq!(installation.remove(false).0, [loopback.clone(), installation.plugin()]);
    assert_eq!(files(&installation.bin_dir), [] as [String; 0]);
    // Of another program.
    fs::write(&loopback, "the reference plugin").unwrap();
    assert!(!installation.install_loopback().unwrap());
    assert_eq!(installation.remove(false).0, Vec::<std::path::PathBuf>::new());
    assert_eq!(fs::read_to_string(&loopback).unwrap(), "the reference plugin");
}

/// `write` to a running program fails with ETXTBSY, and a truncated one would break it.
#[test]
fn a_running_plugin_is_not_disturbed() {
    let (_root, installation) = installation();
    let cat = fs::canonicalize("/bin/cat").unwrap();
    installation.install_plugin(&cat).unwrap();
    let mut running =
        Command::new(installation.plugin()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    assert!(installation.install_plugin(&fs::canonicalize("/bin/true").unwrap()).unwrap());
    assert!(Command::new(installation.plugin()).status().unwrap().success(), "the new one");
    use std::io::Write;
    running.stdin.take().unwrap().write_all(b"old").unwrap();
    assert_eq!(running.wait_with_output().unwrap().stdout, b"old");
}

#[test]
fn the_configuration_is_written_when_it_differs() {
    let (_root, installation) = installation();
    assert!(installation.write_configuration(&list(1500)).unwrap());
    assert!(!installation.write_configuration(&list(1500)).unwrap());
    assert_eq!(mode(&installation.configuration()), 0o600);
    assert!(installation.write_configuration(&list(1450)).unwrap());
    // A process that was killed left a temporary file, and an administrator changed the file.
    fs::write(installation.conf_dir.join(".portcullis-new-1"), "half").unwrap();
    fs::write(installation.configuration(), "{}").unwrap();
    assert!(installation.write_configuration(&list(1450)).unwrap());
    assert_eq!(fs::read_to_string(installation.configuration()).unwrap(), list(1450).to_json());
    assert_eq!(files(&installation.conf_dir), ["10-portcullis.conflist"]);
}

#[test]
fn a_failed_write_keeps_the_old_configuration_and_names_the_file() {
    let (root, installation) = installation();
    installation.write_configuration(&list(1500)).unwrap();
    let full = Installation { conf_dir: root.path().join("binary"), ..installation.clone() };
    fs::write(&full.conf_dir, "a file in place of the folder").unwrap();
    let error = full.write_configuration(&list(1450)).unwrap_err();
    assert!(error.to_string().starts_with("cannot create folder "), "{error}");
    let error = installation.install_plugin(Path::new("/nowhere/portcullis")).unwrap_err();
    assert!(error.to_string().starts_with("cannot read /nowhere/portcullis: No such file"), "{error}");
    assert_eq!(fs::read_to_string(installation.configuration()).unwrap(), list(1500).to_json());
}

#[test]
fn a_reason_that_the_node_is_not_ready() {
    let (_root, installation) = installation();
    let path = installation.state_dir.join(NOT_READY);
    assert!(!installation.set_not_ready(None).unwrap());
    assert!(installation.set_not_ready(Some("the node has no pod CIDRs")).unwrap());
    assert!(!installation.set_not_ready(Some("the node has no pod CIDRs")).unwrap());
    assert_eq!(fs::read_to_string(&path).unwrap(), "the node has no pod CIDRs\n");
    assert!(installation.set_not_ready(None).unwrap());
    assert!(!path.exists());
}

#[test]
fn the_configuration_of_another_network_comes_first() {
    let (_root, installation) = installation();
    assert_eq!(installation.preceding_configuration(), None, "no folder");
    installation.write_configuration(&list(1500)).unwrap();
    for (name, precedes) in [
        ("99-bridge.conf", false),
        ("10-portcullis.conflist.bak", false),
        ("10-flannel.conflist.disabled", false),
        ("10-flannel.conflist", true),
        ("05-cilium.conf", true),
        ("10-kindnet.json", true),
    ] {
        let path = installation.conf_dir.join(name);
        fs::write(&path, "{}").unwrap();
        let found = installation.preceding_configuration();
        assert_eq!(found.is_some(), precedes, "{name}: {found:?}");
        if let Some(found) = found {
            assert!(found.to_string().contains(name), "{found}");
        }
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn removal_leaves_other_files_and_the_records() {
    let (root, installation) = installation();
    let source = root.path().join("binary");
    fs::write(&source, "binary").unwrap();
    installation.install_plugin(&source).unwrap();
    installation.write_configuration(&list(1500)).unwrap();
    installation.set_not_ready(Some("reason")).unwrap();
    fs::write(installation.bin_dir.join("bridge"), "another plugin").unwrap();
    let both = vec![installation.configuration(), installation.plugin()];
    assert_eq!(installation.remove(true).0, both);
    assert!(installation.plugin().exists());
    let (removed, errors) = installation.remove(false);
    assert_eq!((removed, errors.len()), (both, 0));
    assert_eq!(installation.remove(false).0, Vec::<std::path::PathBuf>::new());
    assert_eq!(files(&installation.bin_dir), ["bridge"]);
    assert!(installation.state_dir.join(NOT_READY).exists());
}
