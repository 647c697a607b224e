//! Secrets that this node's configuration has, and their encodings.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use aho_corasick::{AhoCorasick, BuildError, MatchKind};
use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL_NOPAD, Encoding};
use regex::RegexBuilder;
use serde_json::Value;

use super::patterns::SENSITIVE;
use crate::bounded_file::{self, MAX_CONFIGURATION};

/// The shortest secret in bytes: a shorter text occurs by chance.
const MIN_LENGTH: usize = 6;

/// The shortest value of an exec plugin's environment or of a Secret, most of which are not secrets.
const MIN_VALUE_LENGTH: usize = 8;

/// The largest manifest that is searched for Secrets, and their largest number.
const MAX_MANIFEST: usize = 8 << 20;
const MAX_MANIFESTS: usize = 1000;

/// The token of a pod's service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Secrets in plain text.
#[derive(Debug, Default)]
pub(super) struct KnownSecrets(BTreeSet<String>);

impl KnownSecrets {
    fn add(&mut self, text: &str, min_length: usize) {
        let text = text.trim();
        if text.contains("-----BEGIN ") {
            // The lines of a certificate or key, which another program may print without its head.
            let lines = text.lines().filter(|line| !line.starts_with("-----"));
            self.0.extend(lines.map(str::trim).filter(|line| line.len() >= 16).map(str::to_owned));
        } else if text.len() >= min_length {
            self.0.insert(text.to_owned());
        }
    }

    /// Adds the variables of this process whose names say that they are secrets.
    pub(super) fn add_environment(&mut self) {
        let sensitive =
            RegexBuilder::new(SENSITIVE).case_insensitive(true).build().expect("it is a constant");
        for (name, value) in std::env::vars_os() {
            if let (Some(name), Some(value)) = (name.to_str(), value.to_str())
                && sensitive.is_match(name)
            {
                self.add(value, MIN_LENGTH);
            }
        }
    }

    /// Adds the token of the pod.
    pub(super) fn add_service_account(&mut self) {
        self.add_file(Path::new(SERVICE_ACCOUNT));
    }

    fn add_file(&mut self, path: &Path) {
        if let Ok(text) = bounded_file::read_to_string(path, MAX_CONFIGURATION) {
            self.add(&text, MIN_LENGTH);
        }
    }

    /// Adds the credentials in a kubeconfig, and in the files that it names.
    pub(super) fn add_kubeconfig(&mut self, path: &Path) {
        let Ok(text) = bounded_file::read_to_string(path, MAX_CONFIGURATION) else { return };
        let Ok(kubeconfig) = serde_saphyr::from_str::<Value>(&text) else {
            // Whatever is in it must not be in the archive.
            return text.split_whitespace().for_each(|word| self.add(word, 16));
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        let items = |list: &str, item: &str| -> Vec<Value> {
            let list = kubeconfig.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
            list.into_iter().filter_map(|named| named.get(item).cloned()).collect()
        };
        for cluster in items("clusters", "cluster") {
            self.add_data(cluster.get("certificate-authority-data"));
        }
        for user in items("users", "user") {
            for key in ["client-certificate-data", "client-key-data"] {
                self.add_data(user.get(key));
            }
            for key in ["token", "password"] {
                self.add_all(user.get(key), MIN_LENGTH);
            }
            for key in ["tokenFile", "client-key", "client-certificate"] {
                if let Some(path) = user.get(key).and_then(Value::as_str) {
                    self.add_file(&folder.join(path));
                }
            }
            self.add_all(user.pointer("/auth-provider/config"), MIN_VALUE_LENGTH);
            let variables = user.pointer("/exec/env").and_then(Value::as_array).into_iter().flatten();
            variables.for_each(|variable| self.add_all(variable.get("value"), MIN_VALUE_LENGTH));
        }
    }

    /// Adds the values of Secrets in manifests, which a message about a malformed file may quote.
    pub(super) fn add_manifests(&mut self, path: &Path) {
        let mut files: Vec<PathBuf> = match std::fs::read_dir(path) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(_) => vec![path.to_owned()],
        };
        files.truncate(MAX_MANIFESTS);
        for file in files {
            let Ok(bytes) = bounded_file::read_regular(&file, MAX_MANIFEST) else { continue };
            let text = String::from_utf8_lossy(&bytes);
            for document in text.split("\n---") {
                if !document.contains("Secret") {
                    continue;
                }
                match serde_saphyr::from_str::<Value>(document) {
                    Ok(object) if object.get("kind").and_then(Value::as_str) == Some("Secret") => {
                        self.add_all(object.get("stringData"), MIN_VALUE_LENGTH);
                        for value in strings(object.get("data")) {
                            self.add_data(Some(&Value::String(value)));
                        }
                    }
                    Ok(_) => {}
                    // A malformed document may be a Secret.
                    Err(_) => document.split_whitespace().for_each(|word| self.add(word, 16)),
                }
            }
        }
    }

    /// Adds a value in base64, and what it encodes.
    fn add_data(&mut self, value: Option<&Value>) {
        let Some(text) = value.and_then(Value::as_str) else { return };
        let text: String = text.split_whitespace().collect();
        if let Some(plain) =
            BASE64.decode(text.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok())
        {
            self.add(&plain, MIN_VALUE_LENGTH);
        }
        self.add(&text, MIN_VALUE_LENGTH);
    }

    /// Adds all texts in a value.
    fn add_all(&mut self, value: Option<&Value>, min_length: usize) {
        strings(value).iter().for_each(|text| self.add(text, min_length));
    }

    /// Returns a search for each secret in each encoding; of several at one place, it finds the longest.
    ///
    /// # Errors
    /// There are too many secrets.
    pub(super) fn search(&self) -> Result<AhoCorasick, BuildError> {
        let all: BTreeSet<String> = self.0.iter().flat_map(|secret| encodings(secret)).collect();
        AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(all)
    }
}

/// Returns all texts in a value.
fn strings(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(values)) => values.iter().flat_map(|value| strings(Some(value))).collect(),
        Some(Value::Object(fields)) => fields.values().flat_map(|value| strings(Some(value))).collect(),
        _ => Vec::new(),
    }
}

/// Returns a secret as it may appear: plain, in JSON, in a URL, and in base64, also within a longer text in base64.
fn encodings(secret: &str) -> Vec<String> {
    let json = serde_json::to_string(secret).unwrap_or_default();
    let url: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let mut all = vec![secret.to_owned(), json.trim_matches('"').to_owned(), url];
    for encoding in [&BASE64_NOPAD, &BASE64URL_NOPAD] {
        all.extend((0..3).map(|offset| aligned(encoding, secret, offset)));
    }
    all.retain(|text| text.len() >= MIN_LENGTH);
    all.sort_unstable();
    all.dedup();
    all
}

/// Returns the characters of base64 that depend on a secret alone if it starts `offset` bytes after a group of three.
fn aligned(encoding: &Encoding, secret: &str, offset: usize) -> String {
    let bytes: Vec<u8> = std::iter::repeat_n(0, offset).chain(secret.bytes()).collect();
    let text = encoding.encode(&bytes);
    // The first characters have bits of the bytes before, the last one may have bits of those after.
    let first = [0, 2, 3][offset];
    let last = text.len() - usize::from(!bytes.len().is_multiple_of(3));
    text.get(first..last).unwrap_or_default().to_owned()
}
