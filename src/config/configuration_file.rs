//! Reader of the `--config` file, in YAML or TOML.
//!
//! kube-proxy first decodes strictly and, if that fails, decodes again leniently, logs the mistakes and
//! continues. Here an unknown or duplicate field is an error: otherwise a misspelt setting would silently keep its
//! default. Fields that `v1alpha1` had in earlier releases are warnings.

use std::collections::HashMap;
use std::path::Path;

use super::document::{Entry, Malformed, Node, Value};
use super::error::{ConfigError, MAX_SHOWN, Origin, Warning};
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
            if self.errors.len() > MAX_SHOWN {
                return;
            }
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
        let mut first_lines: HashMap<&str, usize> = HashMap::new();
        for entry in entries {
            if self.errors.len() > MAX_SHOWN {
                return;
            }
            match first_lines.get(entry.key.as_str()) {
                Some(&first) => {
                    let origin = self.origin(entry.line, &join(prefix, &entry.key));
                    self.errors.push(ConfigError::Duplicate { origin, first });
                }
                None => _ = first_lines.insert(&entry.key, entry.line),
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
