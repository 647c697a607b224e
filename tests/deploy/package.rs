//! Tests of the Debian package and its systemd unit.

use std::fs;
use std::process::Command;

use toml::Table;

use crate::manifests::root;

/// Files that `deploy/build-packages` generates.
const GENERATED: [&str; 5] = [
    "target/release/portcullis",
    "target/package/man/*.1",
    "target/package/portcullis.bash",
    "target/package/_portcullis",
    "target/package/portcullis.fish",
];

#[test]
fn every_file_of_the_package_exists_or_is_generated() {
    let manifest: Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let assets = deb["assets"].as_array().unwrap();
    let script = fs::read_to_string(root().join("deploy/build-packages")).unwrap();
    let script = script.replace("$1", "portcullis");
    let mut installed = Vec::new();
    for asset in assets {
        let [from, to] = [0, 1].map(|n| asset[n].as_str().unwrap());
        installed.push(to.to_owned());
        match from.strip_prefix("target/") {
            Some(generated) => {
                assert!(GENERATED.contains(&from), "{from}");
                let name = generated.rsplit('/').find(|part| !part.contains('*')).unwrap();
                assert!(script.contains(name), "deploy/build-packages does not make {from}");
            }
            None => {
                let folder = root().join(from.split('*').next().unwrap());
                assert!(folder.exists(), "{from}");
            }
        }
    }
    let units = &deb["systemd-units"];
    let unit = format!(
        "{}/{}.service",
        units["unit-scripts"].as_str().unwrap(),
        units["unit-name"].as_str().unwrap()
    );
    let unit = fs::read_to_string(root().join(unit)).unwrap();
    let program = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/")).unwrap();
    let folder = program.split(' ').next().unwrap().strip_suffix("portcullis").unwrap();
    assert!(installed.iter().any(|to| to == folder), "{program} is not in {installed:?}");
}

#[test]
fn the_unit_has_notifications_and_a_watchdog() {
    let unit = fs::read_to_string(root().join("deploy/systemd/portcullis.service")).unwrap();
    let is_set = |setting: &str| unit.lines().any(|line| line == setting);
    assert!(is_set("Type=notify") && is_set("NotifyAccess=main") && is_set("Restart=always"), "{unit}");
    let watchdog = unit.lines().find_map(|line| line.strip_prefix("WatchdogSec=")).unwrap();
    assert!(watchdog.parse::<u64>().unwrap() >= 30, "too short for a busy node");
    // The notification goes through a unix socket.
    let families = unit.lines().find_map(|line| line.strip_prefix("RestrictAddressFamilies=")).unwrap();
    assert!(families.split(' ').any(|family| family == "AF_UNIX"), "{families}");
}

/// Returns the exposure that `systemd-analyze security` computes for the unit, from 0 (best) to 10.
fn exposure(drop_in: Option<&str>) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let systemd = root().join("deploy/systemd");
    let unit = folder.path().join("portcullis.service");
    fs::copy(systemd.join("portcullis.service"), &unit).unwrap();
    if let Some(drop_in) = drop_in {
        let drop_ins = folder.path().join("portcullis.service.d");
        fs::create_dir(&drop_ins).unwrap();
        fs::copy(systemd.join(drop_in), drop_ins.join(drop_in)).unwrap();
    }
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager"]).arg(&unit);
    let output = command.output().expect("systemd-analyze runs; it is in Debian's package systemd");
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let level = text.lines().find_map(|line| line.split_once("portcullis.service: "));
    let level = level.and_then(|(_, level)| level.split(' ').next()?.parse().ok());
    level.unwrap_or_else(|| panic!("no exposure in:\n{text}"))
}

/// Only root may use the legacy variant of iptables, so the unit runs as root without the drop-in.
#[test]
fn the_unit_has_a_low_exposure() {
    let (root, non_root) = (exposure(None), exposure(Some("non-root.conf")));
    assert!(root < 2.2, "{root}");
    assert!(non_root < 2.0, "{non_root}");
}

#[test]
fn the_unit_sets_the_node_up_with_its_own_arguments() {
    let unit = fs::read_to_string(root().join("deploy/systemd/portcullis.service")).unwrap();
    let value = |setting: &str| unit.lines().find_map(|line| line.strip_prefix(setting)).unwrap().to_owned();
    // `+` runs it without the restrictions of the unit.
    assert_eq!(value("ExecStartPre=+"), value("ExecStart=") + " --init-only");
    assert!(!value("MemoryMax=").is_empty() && !value("LimitNOFILE=").is_empty());
}
