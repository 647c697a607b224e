//! Extraction of the configuration from a ConfigMap manifest.
//!
//! The file of `--config` may be the output of `kubectl get configmap -o yaml`. Line numbers in messages are those of the
//! whole file.

use super::configuration_file::{detect_format, parse};
use super::document::{Entry, Malformed, Node, Value};
use super::kube_proxy_configuration::is_configuration;
use super::origins::FileFormat;

/// The ConfigMap entry that contains the configuration.
pub(super) struct ConfigMapEntry {
    /// Key of the entry.
    pub(super) key: String,
    pub(super) format: FileFormat,
    /// Parsed content, with line numbers of the whole file.
    pub(super) root: Result<Node, Vec<Malformed>>,
}

/// Returns true if a document is a ConfigMap.
pub(super) fn is_config_map(root: &Node) -> bool {
    let is =
        |key: &str, value: &str| field(root, key).is_some_and(|e| e.node.value == Value::Text(value.into()));
    is("apiVersion", "v1") && is("kind", "ConfigMap")
}

/// Finds the configuration in a ConfigMap: the entry `config.conf`, as kubeadm names it, or else the only entry that is a
/// configuration. `text` is the whole file.
///
/// # Errors
/// Returns a description of the expected data.
pub(super) fn find_configuration(root: &Node, text: &str) -> Result<ConfigMapEntry, &'static str> {
    let none = "an entry that is a KubeProxyConfiguration, such as config.conf";
    let data = field(root, "data").ok_or(none)?;
    let Value::Mapping(entries) = &data.node.value else { return Err(none) };
    let candidates: Vec<&Entry> = entries.iter().filter(|entry| is_candidate(entry)).collect();
    let named = candidates.iter().find(|entry| entry.key == "config.conf");
    let entry = match (named, candidates.as_slice()) {
        (Some(entry), _) | (None, [entry]) => entry,
        (None, []) => return Err(none),
        (None, _) => return Err("one entry that is a configuration, or one with the key config.conf"),
    };
    let Value::Text(content) = &entry.node.value else { return Err(none) };
    let format = detect_format(entry.key.as_ref(), content);
    let lines = LineMap::new(entry, content, text);
    let root = parse(format, content).map(|root| with_file_lines(root, &lines));
    let root = root.map_err(|all| {
        let line = |line: Option<usize>| Some(line.map_or(entry.line, |line| lines.in_file(line)));
        all.into_iter().map(|Malformed { line: at, message }| Malformed { line: line(at), message }).collect()
    });
    Ok(ConfigMapEntry { key: entry.key.clone(), format, root })
}

fn field<'a>(root: &'a Node, key: &str) -> Option<&'a Entry> {
    let Value::Mapping(entries) = &root.value else { return None };
    entries.iter().find(|entry| entry.key == key)
}

/// Returns true if an entry looks like a configuration, well-formed or not.
fn is_candidate(entry: &Entry) -> bool {
    let Value::Text(content) = &entry.node.value else { return false };
    entry.key == "config.conf" || entry.key.ends_with(".toml") || is_configuration(content)
}

/// Maps line numbers of an entry to line numbers of the file.
struct LineMap {
    /// Line of the entry's key.
    key: usize,
    /// Number of lines in the file before the first line of the entry; `None` if the entry is not a block of lines.
    before: Option<usize>,
}

impl LineMap {
    fn new(entry: &Entry, content: &str, file: &str) -> Self {
        let blank = content.lines().take_while(|line| line.trim().is_empty()).count();
        let first = content.lines().nth(blank).unwrap_or_default().trim();
        let behind_key = file.lines().enumerate().skip(entry.line);
        let found = behind_key.take(blank + 2).find(|(_, line)| line.trim() == first);
        LineMap { key: entry.line, before: found.and_then(|(before, _)| before.checked_sub(blank)) }
    }

    fn in_file(&self, line: usize) -> usize {
        self.before.map_or(self.key, |before| before + line.max(1))
    }
}

/// Replaces the line numbers of a tree by those of the file.
fn with_file_lines(node: Node, lines: &LineMap) -> Node {
    let value = match node.value {
        Value::List(items) => {
            Value::List(items.into_iter().map(|item| with_file_lines(item, lines)).collect())
        }
        Value::Mapping(entries) => {
            let entry = |Entry { line, key, node }| Entry {
                line: lines.in_file(line),
                key,
                node: with_file_lines(node, lines),
            };
            Value::Mapping(entries.into_iter().map(entry).collect())
        }
        plain => plain,
    };
    Node { line: lines.in_file(node.line), value }
}
