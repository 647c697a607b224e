//! Documents: the output of commands for programs (`-o json`, `-o yaml`), in one style.
//!
//! Each is an object that starts with `apiVersion` and `kind`. Keys are camelCase, durations have their unit in the key
//! (`…Seconds`), times are RFC 3339 in UTC. Keys are only added to a kind, never renamed or removed within a version.

use std::io::{self, Write};

use serde::Serialize;

/// The version of all documents.
pub const API_VERSION: &str = "portcullis.io/v1";

/// A document: the fields of its content, after `apiVersion` and `kind`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document<T> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    content: T,
}

/// The syntax of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentFormat {
    /// JSON, indented.
    Json,
    /// YAML.
    Yaml,
}

impl<T> Document<T> {
    /// A document of a kind. The content must be serialized as an object.
    pub fn new(kind: &'static str, content: T) -> Self {
        Document { api_version: API_VERSION, kind, content }
    }
}

impl<T: Serialize> Document<T> {
    /// Prints the document with a newline at its end.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn print(&self, format: DocumentFormat, out: &mut dyn Write) -> io::Result<()> {
        match format {
            DocumentFormat::Json => {
                serde_json::to_writer_pretty(&mut *out, self).map_err(io::Error::from)?;
                writeln!(out)
            }
            DocumentFormat::Yaml => {
                let text = serde_saphyr::to_string(self).map_err(io::Error::other)?;
                writeln!(out, "{}", text.trim_end())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Content {
        drain_seconds: u64,
        names: Vec<&'static str>,
        reason: Option<&'static str>,
    }

    #[test]
    fn documents_start_with_api_version_and_kind_in_both_formats() {
        let content = Content { drain_seconds: 5, names: vec!["yes", "a: b"], reason: None };
        let document = Document::new("Example", content);
        let printed = |format| {
            let mut out = Vec::new();
            document.print(format, &mut out).expect("writing to memory");
            String::from_utf8(out).expect("it is text")
        };
        let json = printed(DocumentFormat::Json);
        assert!(
            json.starts_with("{\n  \"apiVersion\": \"portcullis.io/v1\",\n  \"kind\": \"Example\",\n"),
            "{json}"
        );
        assert!(json.ends_with("}\n"), "{json}");
        let yaml = printed(DocumentFormat::Yaml);
        assert!(yaml.starts_with("apiVersion: portcullis.io/v1\nkind: Example\n"), "{yaml}");
        let of_json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let of_yaml: serde_json::Value = serde_saphyr::from_str(&yaml).expect("YAML");
        assert_eq!(of_yaml, of_json, "{yaml}");
    }
}
