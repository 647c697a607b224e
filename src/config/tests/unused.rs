//! Tests that every setting has an effect or is declared unused.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::super::invocation::{complete_from_deprecated_ports, root_command};
use super::super::origins::Origins;
use super::super::setting::Setting;
use super::super::setting_table::settings;
use super::super::settings::Settings;
use super::super::validation::validate;
use super::*;

/// Settings that are read before the configuration exists.
const READ_BY_THE_PARSER: [(&str, &str); 2] = [
    ("config", "names the configuration file"),
    ("featureGates", "LoggingAlphaOptions enables other settings, which are unused"),
];

/// Values of all types, of which each setting accepts some.
const VALUES: [&str; 30] = [
    "true",
    "false",
    "0",
    "7",
    "1000",
    "1400",
    "7s",
    "1h",
    "1Ki",
    "text",
    "json",
    "nftables",
    "ipvs",
    "lc",
    "cut",
    "deny",
    "vxlan",
    "bridge",
    "NodeCIDR",
    "BridgeInterface",
    "InterfaceNamePrefix",
    "eth9",
    "10.0.0.1",
    "10.0.0.1:80",
    "/run/x.sock",
    "10.0.0.0/8",
    "localhost",
    "WatchList=false",
    "a=1",
    "Node-B",
];

/// Settings in which other settings have an effect that they do not have by default.
fn bases() -> Vec<Settings> {
    let with = |change: &dyn Fn(&mut Settings)| {
        let mut settings = Settings::default();
        change(&mut settings);
        settings
    };
    vec![
        Settings::default(),
        with(&|s| s.mode = "ipvs".into()),
        with(&|s| s.mode = "nftables".into()),
        with(&|s| (s.detect_local_mode, s.bridge_interface) = ("BridgeInterface".into(), "cni0".into())),
        with(&|s| {
            (s.detect_local_mode, s.interface_name_prefix) = ("InterfaceNamePrefix".into(), "veth".into());
        }),
        with(&|s| (s.network_policy.enabled, s.network_policy.log_group) = (true, 5)),
        with(&|s| s.pod_network.mode = "host-gw".into()),
        with(&|s| (s.healthz_bind_address, s.metrics_bind_address) = ("10.0.0.1".into(), "10.0.0.1".into())),
    ]
}

/// Returns the command and the configuration, and whether the settings are valid.
fn resolve(mut settings: Settings) -> (Command, Config, bool) {
    complete_from_deprecated_ports(&mut settings);
    let validated = validate(&settings, &Origins::default());
    (root_command(&settings), validated.config, validated.errors.is_empty())
}

/// Returns true if some value of the setting changes the command or the configuration.
fn has_effect(setting: &Setting) -> bool {
    bases().into_iter().any(|base| {
        let (command, config, is_valid) = resolve(base.clone());
        assert!(is_valid);
        VALUES.iter().any(|value| {
            let mut changed = base.clone();
            if (setting.field_ref)(&mut changed).read_flag(&[(*value).to_owned()]).is_err() {
                return false;
            }
            let (changed_command, changed_config, is_valid) = resolve(changed);
            is_valid && (changed_command != command || changed_config != config)
        })
    })
}

#[test]
fn every_setting_has_an_effect_or_is_declared_unused() {
    for setting in settings().filter(|setting| !READ_BY_THE_PARSER.iter().any(|(id, _)| *id == setting.id()))
    {
        assert_eq!(has_effect(setting), setting.unused.is_none(), "{}", setting.id());
    }
}

/// The names of all fields of a configuration.
fn field_names(config: &Config) -> BTreeSet<String> {
    let text = format!("{config:#?}");
    let fields = text.lines().filter_map(|line| line.trim().split_once(": "));
    fields
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.chars().all(|c| c.is_lowercase() || c == '_'))
        .collect()
}

/// All source files of the program but those of this module.
fn other_sources(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).expect("the sources can be listed") {
        let path = entry.expect("the sources can be listed").path();
        if path.is_dir() && !path.ends_with("src/config") {
            all += &other_sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all += &fs::read_to_string(path).expect("the sources can be read");
        }
    }
    all
}

#[test]
fn every_field_of_the_configuration_is_read() {
    let sources = other_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let configurations = [
        config(&["--network-policy", "--network-policy-log-group=1", "--nodeport-addresses=10.0.0.0/8"]),
        config(&["--cluster-cidr=10.0.0.0/8,fd00::/8", "--mode=nftables"]),
        config(&["--pod-network=vxlan"]),
    ];
    let names: BTreeSet<String> = configurations.iter().flat_map(field_names).collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        let reads = [format!(".{name}"), format!(" {name},"), format!(" {name} }}"), format!(" {name}: ")];
        assert!(reads.iter().any(|read| sources.contains(read)), "{name} is never read");
    }
}
