//! Tests of the reader of configuration files: formats, errors and warnings.

use std::path::Path;

use super::super::configuration_file::{detect_format, read};
use super::super::origins::{FileFormat, Origins};
use super::super::settings::Settings;

use super::HEADER;

fn errors_in(path: &str, text: &str) -> Vec<String> {
    read(Path::new(path), text, &mut Origins::default()).1.iter().map(ToString::to_string).collect()
}

#[test]
fn formats_are_detected() {
    let rows = [
        ("a.toml", "mode: x", FileFormat::Toml),
        ("a.yaml", "mode = 'x'", FileFormat::KubeProxy),
        ("a.json", "{}", FileFormat::KubeProxy),
        ("config.conf", "apiVersion: kubeproxy.config.k8s.io/v1alpha1\n", FileFormat::KubeProxy),
        ("config.conf", "# a=b\n---\nmode: \"a=b\"\n", FileFormat::KubeProxy),
        ("config", "{\"kind\": \"KubeProxyConfiguration\"}", FileFormat::KubeProxy),
        ("config", "\n# comment\nmode = \"ipvs\"\n", FileFormat::Toml),
        ("config", "[iptables]\n", FileFormat::Toml),
        ("config", "", FileFormat::KubeProxy),
        ("a.yaml", "# Portcullis configuration in TOML\nmode = 'x'\n", FileFormat::Toml),
    ];
    for (path, text, expected) in rows {
        assert_eq!(detect_format(Path::new(path), text), expected, "{path} {text:?}");
    }
}

#[test]
fn mistakes_in_yaml() {
    // (what follows the header, the errors)
    let rows: &[(&str, &[&str])] = &[
        ("", &[]),
        ("mode: ipvs\nipvs:\nnodePortAddresses: null\n", &[]),
        ("iptables: {}\nfeatureGates: {AllBeta: yes}\n", &[]),
        ("clusterCidr: 10.0.0.0/8\n", &["f.yaml:3: clusterCidr: unknown field; did you mean clusterCIDR?"]),
        (
            "iptables:\n  masqueradBit: 3\n",
            &["f.yaml:4: iptables.masqueradBit: unknown field; did you mean iptables.masqueradeBit?"],
        ),
        (
            "masqueradeBit: 3\n",
            &["f.yaml:3: masqueradeBit: unknown field; did you mean iptables.masqueradeBit?"],
        ),
        ("frobnicate: 3\n", &["f.yaml:3: frobnicate: unknown field"]),
        ("mode: ipvs\nmode: iptables\n", &["f.yaml:4: mode: duplicate field; first defined in line 3"]),
        ("kind: KubeProxyConfiguration\n", &["f.yaml:3: kind: duplicate field; first defined in line 2"]),
        (
            "iptables:\n  syncPeriod: 30\n  masqueradeAll: 1\n",
            &[
                "f.yaml:4: iptables.syncPeriod: invalid value 30: expected a duration such as \"30s\", \"1h30m\" or \"500ms\"",
                "f.yaml:5: iptables.masqueradeAll: invalid value 1: expected true or false",
            ],
        ),
        ("iptables: 3\n", &["f.yaml:3: iptables: invalid value 3: expected a mapping"]),
        (
            "oomScoreAdj: 9999999999\nshowHiddenMetricsForVersion: 1.35\n",
            &[
                "f.yaml:3: oomScoreAdj: invalid value 9999999999: expected a 32-bit integer",
                "f.yaml:4: showHiddenMetricsForVersion: invalid value 1.35: expected a string (put it in quotes)",
            ],
        ),
        (
            "nodePortAddresses: primary\n",
            &["f.yaml:3: nodePortAddresses: invalid value \"primary\": expected a list of strings"],
        ),
        (
            "featureGates:\n  AllAlpha: true\n  AllAlpha: false\n",
            &[
                "f.yaml:4: featureGates: invalid value {...}: expected a mapping of feature gate names to true or false, without duplicates",
            ],
        ),
    ];
    for (rest, expected) in rows {
        assert_eq!(errors_in("f.yaml", &format!("{HEADER}{rest}")), *expected, "{rest}");
    }
}

fn warnings_in(text: &str) -> (Settings, Vec<String>, Vec<String>) {
    let mut origins = Origins::default();
    let (settings, errors) = read(Path::new("f.yaml"), text, &mut origins);
    let errors = errors.iter().map(ToString::to_string).collect();
    (settings, errors, origins.take_warnings().iter().map(ToString::to_string).collect())
}

#[test]
fn fields_of_earlier_releases_are_warnings() {
    let rows = [
        ("udpIdleTimeout: 250ms\n", "f.yaml:3: udpIdleTimeout has no effect"),
        ("udpTimeoutMilliseconds: 250ms\n", "f.yaml:3: udpTimeoutMilliseconds has no effect"),
        ("resourceContainer: /kube-proxy\n", "f.yaml:3: resourceContainer has no effect"),
        ("conntrack:\n  max: null\n  maxPerCore: 1\n", "f.yaml:4: conntrack.max has no effect"),
    ];
    for (rest, warning) in rows {
        let (_, errors, warnings) = warnings_in(&format!("{HEADER}{rest}"));
        assert_eq!(errors, [""; 0], "{rest}");
        assert!(warnings.len() == 1 && warnings[0].starts_with(warning), "{rest}: {warnings:?}");
    }
    let (settings, errors, _) = warnings_in(&format!("{HEADER}featureGates: \"AllBeta=true\"\n"));
    assert_eq!((errors.len(), settings.feature_gates.get("AllBeta")), (0, Some(&true)));
    let (_, errors, warnings) =
        warnings_in("# Portcullis configuration in TOML\nconfig-sync-period = \"15m\"\n");
    assert_eq!(errors, [""; 0]);
    assert!(warnings[0].starts_with("f.yaml:2: config-sync-period has no effect"), "{warnings:?}");
    assert_eq!(errors_in("f.toml", "udpIdleTimeout = \"1s\"\n").len(), 1, "Portcullis TOML never had it");
}

#[test]
fn configuration_is_read_from_a_config_map() {
    let indented = |rest: &str| format!("{HEADER}{rest}").replace('\n', "\n    ").trim_end().to_owned();
    let map = |key: &str, rest: &str| {
        format!(
            "apiVersion: v1\ndata:\n  kubeconfig.conf: |-\n    apiVersion: v1\n    kind: Config\n  {key}: |-\n    {}\nkind: ConfigMap\nmetadata:\n  name: kube-proxy\n",
            indented(rest)
        )
    };
    for key in ["config.conf", "config.yaml"] {
        let (settings, errors, warnings) = warnings_in(&map(key, "mode: ipvs\nudpIdleTimeout: 1s\n"));
        assert_eq!((errors, settings.mode.as_str()), (Vec::<String>::new(), "ipvs"), "{key}");
        assert!(warnings[0].contains(&format!("data[{key}]")), "{warnings:?}");
        assert!(warnings[1].starts_with("f.yaml:10: udpIdleTimeout"), "{warnings:?}");
    }
    let (_, errors, _) = warnings_in(&map("config.conf", "moode: ipvs\n"));
    assert_eq!(errors, ["f.yaml:9: moode: unknown field; did you mean mode?"]);
    let (_, errors, _) = warnings_in(&map("config.conf", "mode: [\n"));
    assert!(errors[0].starts_with("f.yaml:"), "{errors:?}");
    let toml = "apiVersion: v1\nkind: ConfigMap\ndata:\n  config.toml: |\n    mode = \"ipvs\"\n    [network-policy]\n    enabled = true\n";
    let (settings, errors, _) = warnings_in(toml);
    assert_eq!((errors.len(), settings.mode.as_str(), settings.network_policy.enabled), (0, "ipvs", true));
    let json = format!(
        "{{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"data\": {{\"config.conf\": {:?}}}}}",
        format!("{HEADER}mode: nftables\n")
    );
    assert_eq!(warnings_in(&json).0.mode, "nftables");
    let (_, errors, _) = warnings_in("apiVersion: v1\nkind: ConfigMap\ndata: {a: b}\n");
    assert!(errors[0].contains("expected an entry that is a KubeProxyConfiguration"), "{errors:?}");
}

#[test]
fn mistakes_in_the_header() {
    let rows: &[(&str, &[&str])] = &[
        (
            "mode: ipvs\n",
            &[
                "f.yaml:1: apiVersion is missing, expected \"kubeproxy.config.k8s.io/v1alpha1\"",
                "f.yaml:1: kind is missing, expected \"KubeProxyConfiguration\"",
            ],
        ),
        (
            "apiVersion: kubeproxy.config.k8s.io/v1alpha2\nkind: KubeProxyConfiguration\n",
            &[
                "f.yaml:1: apiVersion is \"kubeproxy.config.k8s.io/v1alpha2\", expected \"kubeproxy.config.k8s.io/v1alpha1\"",
            ],
        ),
        ("- 1\n", &["f.yaml:1: the document: invalid value [...]: expected a mapping"]),
    ];
    for (text, expected) in rows {
        assert_eq!(errors_in("f.yaml", text), *expected, "{text}");
    }
}

#[test]
fn mistakes_in_toml() {
    let rows: &[(&str, &[&str])] = &[
        ("mode = \"ipvs\"\n[ipvs]\nstrict-arp = true\n", &[]),
        ("\nmoode = \"ipvs\"\n", &["f.toml:2: moode: unknown field; did you mean mode?"]),
        (
            "[ipvs]\nstrictARP = true\n",
            &["f.toml:2: ipvs.strictARP: unknown field; did you mean ipvs.strict-arp?"],
        ),
        (
            "[iptables]\nmasquerade-bit = \"3\"\n",
            &["f.toml:2: iptables.masquerade-bit: invalid value \"3\": expected a 32-bit integer"],
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(errors_in("f.toml", text), *expected, "{text}");
    }
}

#[test]
fn zero_in_yaml_is_the_default_and_in_toml_it_is_zero() {
    let yaml = format!("{HEADER}iptables:\n  minSyncPeriod: 0s\n  masqueradeBit: 0\n");
    let settings = read(Path::new("f.yaml"), &yaml, &mut Origins::default()).0;
    assert_eq!(
        (settings.iptables.min_sync_period.to_string(), settings.iptables.masquerade_bit),
        ("1s".into(), 0)
    );
    let toml = "[iptables]\nmin-sync-period = \"0s\"\nmasquerade-bit = 0\n";
    let settings = read(Path::new("f.toml"), toml, &mut Origins::default()).0;
    assert_eq!(
        (settings.iptables.min_sync_period.to_string(), settings.iptables.masquerade_bit),
        ("0s".into(), 0)
    );
}

#[test]
fn many_mistakes_are_truncated() {
    let unknown =
        |separator: &str| (0..5_000).map(|n| format!("unknown{n}{separator}1\n")).collect::<String>();
    let duplicate = |separator: &str| format!("{HEADER}{}", format!("mode{separator}ipvs\n").repeat(5_000));
    let rows = [
        ("a.toml", unknown(" = ")),
        ("a.yaml", format!("{HEADER}{}", unknown(": "))),
        ("a.yaml", duplicate(": ")),
        ("a.toml", "= 1\n".repeat(5_000)),
    ];
    for (path, text) in rows {
        let errors = errors_in(path, &text);
        assert_eq!(errors.len(), super::super::error::MAX_SHOWN + 1, "{path}: {:?}", errors.last());
    }
}
