//! Tests of the Debian package and its systemd unit.

use std::fs;

use toml::Table;

use crate::manifests::root;

/// Files that `make deb` generates.
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
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let mut installed = Vec::new();
    for asset in assets {
        let [from, to] = [0, 1].map(|n| asset[n].as_str().unwrap());
        installed.push(to.to_owned());
        match from.strip_prefix("target/") {
            Some(generated) => {
                assert!(GENERATED.contains(&from), "{from}");
                let name = generated.rsplit('/').find(|part| !part.contains('*')).unwrap();
                assert!(makefile.contains(name), "no rule makes {from}");
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
