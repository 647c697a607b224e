//! Reader of the `--config` file, in YAML or TOML.
//!
//! kube-proxy first decodes strictly and, if that fails, decodes again leniently, logs the mistakes and
//! continues. Here an unknown or duplicate field is an error: otherwise a misspelt setting would silently keep its
//! default. Fields that `v1alpha1` had in earlier releases are warnings.

use std::path::Path;

use super::document::{Entry, Malformed, Node, Value};
use super::error::{ConfigError, Origin, Warning};
use super::name_suggestion::nearest;
use super::origins::{FileFormat, Origins};
use super::setting::Setting;
use super::setting_table::settings;
use super::settings::Settings;
use super::{config_map, kube_proxy_configuration, toml_file, yaml_document};

/// Detects the format by the file's extension or, without a known one, by the first line of content.
pub(super) fn detect_format(path: &Path, text: &str) -> FileFormat {
    if text.starts_with(toml_file::MARKER) {
        return FileFormat::Toml;
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => return FileFormat::Toml,
        Some("yaml" | "yml" | "json") => return FileFormat::KubeProxy,
        _ => {}
    }
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(['#', '%']) && *line != "---");
    let is_key = |key: &str| key.chars().all(|c| c.is_ascii_alphanumeric() || "-_. \"".contains(c));
    let is_toml =
        |line: &str| line.starts_with('[') || line.split_once('=').is_some_and(|(key, _)| is_key(key));
    if first.is_some_and(is_toml) { FileFormat::Toml } else { FileFormat::KubeProxy }
}

/// Reads `text` over the defaults of its format. Returns the settings and the errors; a setting with an invalid value keeps
/// its default.
pub(super) fn read(path: &Path, text: &str, origins: &mut Origins) -> (Settings, Vec<ConfigError>) {
    let mut format = detect_format(path, text);
    let mut root = parse(format, text);
    let mut config_map_error = None;
    if let (FileFormat::KubeProxy, Ok(node)) = (format, &root)
        && config_map::is_config_map(node)
    {
        match config_map::find_configuration(node, text) {
            Ok(entry) => {
                origins.warn(Warning::Unwrapped { path: path.to_owned(), entry: entry.key });
                (format, root) = (entry.format, entry.root);
            }
            Err(expected) => config_map_error = Some((node.line, expected)),
        }
    }
    origins.set_file(path, format);
    let mut reader = Reader {
        path,
        format,
        settings: match format {
            FileFormat::KubeProxy => Settings::for_kube_proxy_file(),
            FileFormat::Toml => Settings::default(),
        },
        origins,
        errors: Vec::new(),
    };
    if let Some((line, expected)) = config_map_error {
        reader.invalid(line.max(1), "data", "{...}".to_owned(), expected);
        return (reader.settings, reader.errors);
    }
    match root {
        Ok(root) => reader.document(&root),
        Err(all) => reader.errors.extend(all.into_iter().map(|malformed| ConfigError::Malformed {
            path: path.to_owned(),
            line: malformed.line,
            format: format.name(),
            message: malformed.message,
        })),
    }
    (reader.settings, reader.errors)
}

/// Parses a file into a tree.
pub(super) fn parse(format: FileFormat, text: &str) -> Result<Node, Vec<Malformed>> {
    match format {
        FileFormat::KubeProxy => yaml_document::parse(text).map_err(|malformed| vec![malformed]),
        FileFormat::Toml => toml_file::parse(text),
    }
}

struct Reader<'a> {
    path: &'a Path,
    format: FileFormat,
    settings: Settings,
    origins: &'a mut Origins,
    errors: Vec<ConfigError>,
}

impl Reader<'_> {
    fn document(&mut self, root: &Node) {
        let entries = match &root.value {
            Value::Mapping(entries) => entries.as_slice(),
            Value::Null => &[],
            other => return self.invalid(root.line, "the document", other.to_string(), "a mapping"),
        };
        match self.format {
            FileFormat::KubeProxy => {
                self.errors.extend(kube_proxy_configuration::check_header(self.path, root.line, entries));
                let is_header = |entry: &&Entry| kube_proxy_configuration::is_header(&entry.key);
                self.duplicates("", &entries.iter().filter(is_header).collect::<Vec<_>>());
                self.mapping("", &entries.iter().filter(|entry| !is_header(entry)).collect::<Vec<_>>());
                kube_proxy_configuration::complete(&mut self.settings, self.origins);
            }
            FileFormat::Toml => self.mapping("", &entries.iter().collect::<Vec<_>>()),
        }
    }

    fn mapping(&mut self, prefix: &str, entries: &[&Entry]) {
        self.duplicates(prefix, entries);
        for entry in entries {
            let field = join(prefix, &entry.key);
            if let Some(setting) = settings().find(|setting| self.format.field(setting) == Some(&field)) {
                self.value(setting, &field, &entry.node);
            } else if self.is_section(&field) {
                self.section(&field, &entry.node);
            } else if let Some(why) = self.removed_field(&field) {
                let origin = self.origin(entry.line, &field);
                self.origins.warn(Warning::NoEffect { origin, why });
            } else {
                let suggestion = self.suggestion(prefix, &entry.key);
                self.errors
                    .push(ConfigError::UnknownField { origin: self.origin(entry.line, &field), suggestion });
            }
        }
    }

    fn section(&mut self, field: &str, node: &Node) {
        match &node.value {
            Value::Mapping(entries) => self.mapping(field, &entries.iter().collect::<Vec<_>>()),
            Value::Null => {}
            other => self.invalid(node.line, field, other.to_string(), "a mapping"),
        }
    }

    fn value(&mut self, setting: &'static Setting, field: &str, node: &Node) {
        // As in Go, null keeps the field's value.
        if node.value == Value::Null {
            return;
        }
        let before = self.settings.clone();
        if let Err(expected) = (setting.field_ref)(&mut self.settings).read_node(node) {
            return self.invalid(node.line, field, node.value.to_string(), expected);
        }
        let zero = (setting.field_ref)(&mut self.settings).is_zero();
        if zero && setting.zero_is_default && self.format == FileFormat::KubeProxy {
            self.settings = before;
        } else {
            self.origins.by_file(setting.id(), node.line);
        }
    }

    fn duplicates(&mut self, prefix: &str, entries: &[&Entry]) {
        for (i, entry) in entries.iter().enumerate() {
            if let Some(first) = entries[..i].iter().find(|earlier| earlier.key == entry.key) {
                let origin = self.origin(entry.line, &join(prefix, &entry.key));
                self.errors.push(ConfigError::Duplicate { origin, first: first.line });
            }
        }
    }

    fn removed_field(&self, field: &str) -> Option<&'static str> {
        match self.format {
            FileFormat::KubeProxy => kube_proxy_configuration::removed_field(field),
            FileFormat::Toml => toml_file::removed_field(field),
        }
    }

    fn fields(&self) -> impl Iterator<Item = &'static str> + use<> {
        let format = self.format;
        settings().filter_map(move |setting| format.field(setting))
    }

    fn is_section(&self, field: &str) -> bool {
        self.fields().any(|known| known.strip_prefix(field).is_some_and(|rest| rest.starts_with('.')))
    }

    /// Finds the field that was probably meant: one of the same mapping, or one with a similar name in another mapping.
    fn suggestion(&self, prefix: &str, key: &str) -> Option<String> {
        let within = |known: &'static str| {
            let rest =
                if prefix.is_empty() { known } else { known.strip_prefix(prefix)?.strip_prefix('.')? };
            rest.split('.').next()
        };
        let here = nearest(key, self.fields().filter_map(within)).map(|found| join(prefix, found));
        here.or_else(|| {
            let last = |known: &'static str| known.rsplit('.').next().unwrap_or(known);
            let found = nearest(key, self.fields().map(last))?;
            self.fields().find(|known| last(known) == found).map(str::to_owned)
        })
    }

    fn origin(&self, line: usize, field: &str) -> Origin {
        Origin::File { path: self.path.to_owned(), line, field: field.to_owned() }
    }

    fn invalid(&mut self, line: usize, field: &str, value: String, expected: &str) {
        let origin = self.origin(line, field);
        self.errors.push(ConfigError::Invalid { origin, value, expected: expected.to_owned() });
    }
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

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
            (
                "clusterCidr: 10.0.0.0/8\n",
                &["f.yaml:3: clusterCidr: unknown field; did you mean clusterCIDR?"],
            ),
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
        assert_eq!(
            (errors.len(), settings.mode.as_str(), settings.network_policy.enabled),
            (0, "ipvs", true)
        );
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
}
