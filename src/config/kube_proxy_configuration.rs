//! `KubeProxyConfiguration` v1alpha1, kube-proxy's configuration file: its header and its defaults, and the writer for
//! `--write-config-to`.
//!
//! Source of the rules: the package `k8s.io/kube-proxy/config/v1alpha1` and its defaults as of v1.36.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use super::address::{parse_ip, parse_socket_address};
use super::document::{Entry, Value};
use super::error::ConfigError;
use super::field_ref::FieldRef;
use super::go_duration::GoDuration;
use super::origins::Origins;
use super::settings::{HEALTHZ_PORT, METRICS_PORT, Settings};

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";

const USERSPACE: &str = "it is for userspace mode, which kube-proxy no longer has";

/// Fields of earlier releases of `v1alpha1`, with the reason why they have no effect. kube-proxy logs them as unknown and
/// continues.
const REMOVED: [(&str, &str); 4] = [
    ("conntrack.max", "conntrack.maxPerCore and conntrack.min replaced it"),
    ("resourceContainer", "kube-proxy no longer moves itself to a cgroup"),
    ("udpIdleTimeout", USERSPACE),
    ("udpTimeoutMilliseconds", USERSPACE),
];

/// Returns the reason why a field of earlier releases of `v1alpha1` has no effect.
pub(super) fn removed_field(field: &str) -> Option<&'static str> {
    REMOVED.iter().find(|(removed, _)| *removed == field).map(|(_, why)| *why)
}

/// Returns true for `apiVersion` and `kind`, which are not settings.
pub(super) fn is_header(field: &str) -> bool {
    matches!(field, "apiVersion" | "kind")
}

/// Returns true if a text looks like a `KubeProxyConfiguration`, well-formed or not.
pub(super) fn is_configuration(text: &str) -> bool {
    text.lines().any(|line| line.trim_start().starts_with("kind") && line.contains(KIND))
        || (text.trim_start().starts_with('{') && text.contains(KIND))
}

/// Checks `apiVersion` and `kind`.
pub(super) fn check_header(path: &Path, line: usize, entries: &[Entry]) -> Vec<ConfigError> {
    let wrong = |(field, expected): (&'static str, &'static str)| {
        let entry = entries.iter().find(|entry| entry.key == field);
        let (line, found) = match entry {
            Some(Entry { node, .. }) if node.value == Value::Text(expected.to_owned()) => return None,
            Some(Entry { line, node, .. }) => (*line, node.value.to_string()),
            None => (line.max(1), "missing".to_owned()),
        };
        Some(ConfigError::WrongKind { path: path.to_owned(), line, field, found, expected })
    };
    [("apiVersion", API_VERSION), ("kind", KIND)].into_iter().filter_map(wrong).collect()
}

/// Applies the defaults that depend on other fields: with an IPv6 `bindAddress` the servers' addresses are IPv6, and
/// an address without a port gets the server's default port.
pub(super) fn complete(settings: &mut Settings, origins: &Origins) {
    let is_v4 = parse_ip(&settings.bind_address).is_some_and(|ip| ip.is_ipv4());
    if !is_v4 && origins.is_default("healthzBindAddress") {
        settings.healthz_bind_address = format!("[::]:{HEALTHZ_PORT}");
    }
    if !is_v4 && origins.is_default("metricsBindAddress") {
        settings.metrics_bind_address = format!("[::1]:{METRICS_PORT}");
    }
    append_port(&mut settings.healthz_bind_address, HEALTHZ_PORT);
    append_port(&mut settings.metrics_bind_address, METRICS_PORT);
}

/// Appends a port to an IP address without one. Anything else is left to validation.
pub(super) fn append_port(address: &mut String, port: u16) {
    if parse_ip(address)
        .is_some_and(|ip: IpAddr| parse_socket_address(address, port).is_some_and(|a| a.ip() == ip))
    {
        *address =
            if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
    }
}

/// Returns the settings as kube-proxy's `--write-config-to` writes them: keys
/// sorted, empty optional fields omitted, and sync periods and `masqueradeAll` set only in the section of the
/// configured mode.
pub(super) fn write(settings: &Settings) -> String {
    let mut settings = as_converted(settings);
    let mut rows: Vec<_> =
        super::setting_table::settings().filter_map(|s| Some((s.yaml?, s.field_ref))).collect();
    rows.extend([("apiVersion", header as fn(&mut Settings) -> FieldRef<'_>), ("kind", header)]);
    rows.sort_by_key(|(path, _)| *path);
    rows.dedup_by_key(|(path, _)| *path);
    let mut out = String::new();
    let mut section: Vec<&str> = Vec::new();
    for (path, field_ref) in rows {
        let text = match path {
            "apiVersion" => Some(API_VERSION.to_owned()),
            "kind" => Some(KIND.to_owned()),
            _ => scalar_or_block(path, field_ref(&mut settings)),
        };
        let Some(text) = text else { continue };
        let segments: Vec<&str> = path.split('.').collect();
        let (key, parents) = segments.split_last().expect("a path has a last segment");
        let shared = section.iter().zip(parents).take_while(|(a, b)| a == b).count();
        for (depth, parent) in parents.iter().enumerate().skip(shared) {
            push_line(&mut out, depth, parent, "");
        }
        section = parents.to_vec();
        push_line(&mut out, parents.len(), key, &text);
    }
    out
}

/// Placeholder for the header, which has no field in the settings.
fn header(settings: &mut Settings) -> FieldRef<'_> {
    FieldRef::Text(&mut settings.mode)
}

fn push_line(out: &mut String, depth: usize, key: &str, value: &str) {
    let indent = "  ".repeat(depth);
    let separator = if value.is_empty() || value.starts_with('\n') { "" } else { " " };
    let value = value.replace('\n', &format!("\n{indent}"));
    writeln!(out, "{indent}{key}:{separator}{value}").expect("writing to a string does not fail");
}

/// Applies upstream's conversion from its internal form, which clears settings of other modes, and its
/// platform defaults for mode and detect-local mode.
fn as_converted(settings: &Settings) -> Settings {
    let mut converted = settings.clone();
    if converted.mode.is_empty() {
        converted.mode = "iptables".into();
    }
    if converted.detect_local_mode.is_empty() {
        converted.detect_local_mode = "ClusterCIDR".into();
    }
    if converted.mode == "nftables" && converted.node_port_addresses.is_empty() {
        converted.node_port_addresses = vec!["primary".into()];
    }
    if converted.mode != "ipvs" {
        (converted.ipvs.sync_period, converted.ipvs.min_sync_period) = (GoDuration::ZERO, GoDuration::ZERO);
    }
    if converted.mode == "nftables" {
        converted.iptables.masquerade_all = false;
    } else {
        (converted.nftables.sync_period, converted.nftables.min_sync_period) =
            (GoDuration::ZERO, GoDuration::ZERO);
        converted.nftables.masquerade_all = false;
    }
    if matches!(converted.mode.as_str(), "nftables" | "ipvs") {
        (converted.iptables.sync_period, converted.iptables.min_sync_period) =
            (GoDuration::ZERO, GoDuration::ZERO);
    }
    converted
}

/// Returns a value in YAML, or `None` for a field that upstream omits when it is empty.
fn scalar_or_block(path: &str, field_ref: FieldRef<'_>) -> Option<String> {
    let is_optional = matches!(path, "featureGates" | "logging.vmodule" | "windowsRunAsService")
        || path.ends_with(".splitStream");
    if is_optional && field_ref.is_zero() {
        return None;
    }
    Some(match field_ref {
        FieldRef::Bool(_)
        | FieldRef::Integer(_)
        | FieldRef::Float(_)
        | FieldRef::Duration(_)
        | FieldRef::DurationOrNanoseconds(_) => field_ref.to_string(),
        FieldRef::Text(_) | FieldRef::Quantity(_) | FieldRef::Joined(_) => {
            quoted_where_needed(&field_ref.to_string())
        }
        FieldRef::List(values) if values.is_empty() => "null".into(),
        FieldRef::List(values) => {
            values.iter().map(|value| format!("\n- {}", quoted_where_needed(value))).collect()
        }
        FieldRef::Gates(gates) => gates.iter().map(|(name, on)| format!("\n  {name}: {on}")).collect(),
        FieldRef::VModules(modules) => {
            let item = |m: &super::settings::VModule| {
                format!(
                    "\n- filePattern: {}\n  verbosity: {}",
                    quoted_where_needed(&m.file_pattern),
                    m.verbosity
                )
            };
            modules.iter().map(item).collect()
        }
    })
}

/// Returns a YAML string: plain if a parser reads it as the same string, else in double quotes.
fn quoted_where_needed(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "/._-:,+ ".contains(c);
    let starts_plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
    let plain = starts_plain && text.chars().all(safe) && !text.contains(": ") && !text.ends_with([':', ' ']);
    let word = text.to_ascii_lowercase();
    let special =
        matches!(word.as_str(), "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "null");
    let number = text.parse::<f64>().is_ok() || text.starts_with("0x") || text.starts_with("0o");
    if plain && !special && !number { text.to_owned() } else { double_quoted(text) }
}

/// Quotes a string, escaping at least the characters that YAML does not allow in double quotes.
fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ if c.is_alphanumeric() => out.push(c),
            _ => write!(out, "\\U{:08x}", u32::from(c)).expect("writing to a string does not fail"),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::super::configuration_file::read;
    use super::super::setting_table::settings;
    use super::*;

    const RECORDED: &str = include_str!("../../fixtures/kube-proxy/default-config.yaml");

    #[test]
    fn the_default_configuration_equals_kube_proxys() {
        assert_eq!(write(&Settings::default()), RECORDED);
    }

    #[test]
    fn every_field_is_in_the_recorded_configuration_or_is_optional() {
        let optional = [
            "featureGates",
            "logging.vmodule",
            "windowsRunAsService",
            "logging.options.text.splitStream",
            "logging.options.json.splitStream",
        ];
        for field in settings().filter_map(|setting| setting.yaml).filter(|field| !optional.contains(field)) {
            let key = field.rsplit('.').next().expect("a segment");
            assert!(
                RECORDED.contains(&format!("{key}:")),
                "{field} is not in the file that kube-proxy writes"
            );
        }
    }

    #[test]
    fn written_configurations_read_back_the_same() {
        let rows = [
            "mode: iptables\n",
            "mode: ipvs\nipvs:\n  scheduler: rr\n  syncPeriod: 10s\n  minSyncPeriod: 2s\n  excludeCIDRs:\n  - 10.0.0.0/8\n  - ::/0\n",
            "mode: nftables\nnftables:\n  masqueradeAll: true\n  masqueradeBit: 3\nnodePortAddresses:\n- primary\n",
            "featureGates:\n  AllAlpha: true\n  AllBeta: false\n",
            "logging:\n  verbosity: 4\n  vmodule:\n  - filePattern: a*\n    verbosity: 3\n  options:\n    text:\n      splitStream: true\n      infoBufferSize: 2Ki\n",
            "clusterCIDR: 10.244.0.0/16,fd00::/48\nhostnameOverride: \"123\"\nclientConnection:\n  kubeconfig: /etc/a b/c\n  qps: 2.5\n",
            "bindAddress: \"::\"\nwinkernel:\n  networkName: \"on\"\nportRange: \"0x10\"\n",
            "hostnameOverride: 'a: \"b\" #c'\n",
        ];
        let header = format!("apiVersion: {API_VERSION}\nkind: {KIND}\n");
        for row in rows {
            let (first, errors) =
                read(Path::new("a.yaml"), &format!("{header}{row}"), &mut Origins::default());
            assert!(errors.is_empty(), "{row}: {errors:?}");
            let written = write(&first);
            let (again, errors) = read(Path::new("b.yaml"), &written, &mut Origins::default());
            assert!(errors.is_empty(), "{written}: {errors:?}");
            assert_eq!(write(&again), written, "{row}");
            assert_eq!(as_converted(&first).mode, again.mode, "{row}");
            assert_eq!(
                (
                    &first.ipvs.exclude_cidrs,
                    &first.logging,
                    &first.feature_gates,
                    &first.cluster_cidrs,
                    &first.compatibility,
                    &first.client_connection,
                    &first.hostname_override
                ),
                (
                    &again.ipvs.exclude_cidrs,
                    &again.logging,
                    &again.feature_gates,
                    &again.cluster_cidrs,
                    &again.compatibility,
                    &again.client_connection,
                    &again.hostname_override
                ),
                "{written}"
            );
        }
    }

    #[test]
    fn listening_addresses_follow_the_bind_address() {
        let rows = [
            ("", "0.0.0.0:10256", "127.0.0.1:10249"),
            ("bindAddress: 10.0.0.1\n", "0.0.0.0:10256", "127.0.0.1:10249"),
            ("bindAddress: \"::\"\n", "[::]:10256", "[::1]:10249"),
            ("bindAddress: \"::\"\nhealthzBindAddress: 10.0.0.1\n", "10.0.0.1:10256", "[::1]:10249"),
            ("healthzBindAddress: fd00::1\nmetricsBindAddress: \"[::]:9\"\n", "[fd00::1]:10256", "[::]:9"),
            ("healthzBindAddress: \"\"\n", "0.0.0.0:10256", "127.0.0.1:10249"),
        ];
        for (text, healthz, metrics) in rows {
            let file = format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{text}");
            let (settings, errors) = read(Path::new("a.yaml"), &file, &mut Origins::default());
            assert!(errors.is_empty(), "{errors:?}");
            assert_eq!(
                (settings.healthz_bind_address.as_str(), settings.metrics_bind_address.as_str()),
                (healthz, metrics),
                "{text}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_string_reads_back_the_same(text in ".*") {
            let settings = Settings {
                hostname_override: text.clone(),
                node_port_addresses: vec![text.clone()],
                ..Settings::default()
            };
            let written = write(&settings);
            let (again, errors) = read(Path::new("a.yaml"), &written, &mut Origins::default());
            proptest::prop_assert!(errors.is_empty(), "{written}: {errors:?}");
            proptest::prop_assert_eq!(&again.hostname_override, &text);
            proptest::prop_assert_eq!(again.node_port_addresses, vec![text]);
        }
    }
}
