//! Parsing of manifests into documents. Pure: the source of manifests reads the files and keeps the last good version.
//!
//! ```text
//! text ─split─► Chunk (a `---` document, or a JSON value) ─documents─► Document (an object)
//! ```
//!
//! A text is split into chunks before anything is parsed, so a malformed document does not affect others. Line numbers are
//! those of the file, from 1.

mod json;
mod kind;
mod yaml;

use std::fmt;

use serde_json::Value;

use crate::kind::Kind;
pub use kind::misspelled_kind;
pub use yaml::{MAX_ALIAS_BYTES, MAX_ALIAS_VALUES};

/// An object of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The line on which it begins.
    pub line: usize,
    /// Its kind; `None` for kinds that are not in use.
    pub kind: Option<Kind>,
    /// The whole object.
    pub value: Value,
}

/// An error that prevents the parsing of a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct ManifestError {
    /// The name of the file.
    pub file: String,
    /// The line of the error if known, else the first line of the document.
    pub line: usize,
    /// The error, and what was expected.
    pub message: String,
}

/// The text of a document, not parsed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The line on which it begins.
    pub line: usize,
    /// Its text.
    pub text: &'a str,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Yaml,
}

/// Documents, or their errors, in order.
pub type Documents<'a> = Box<dyn Iterator<Item = Result<Document, ManifestError>> + 'a>;

/// Parses all objects of a text. `file` is the name for errors; with the suffix `.json` the text is JSON (one or more values),
/// otherwise YAML.
pub fn parse<'a>(file: &'a str, text: &'a str) -> impl Iterator<Item = Result<Document, ManifestError>> + 'a {
    let (chunks, error) = match split(file, text) {
        Ok(chunks) => (chunks, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let documents = chunks.into_iter().flat_map(move |chunk| chunk.documents(file));
    documents.chain(error.map(Err))
}

/// The most documents of a file.
pub const MAX_DOCUMENTS: usize = 200_000;

/// Splits a text into documents, without those that are empty or contain only comments.
///
/// # Errors
/// There are more than [`MAX_DOCUMENTS`].
pub fn split<'a>(file: &str, text: &'a str) -> Result<Vec<Chunk<'a>>, ManifestError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let chunks = if file.ends_with(".json") { json::split(text) } else { yaml::split(text) };
    match chunks.last() {
        Some(last) if chunks.len() > MAX_DOCUMENTS => {
            let message = format!("expected at most {MAX_DOCUMENTS} documents in a file");
            Err(last.error(file, last.line, message))
        }
        _ => Ok(chunks),
    }
}

impl<'a> Chunk<'a> {
    /// Its objects: one, or those of a list (`List`, `ServiceList` and the like). ParsedObject as they are taken.
    pub fn documents(self, file: &'a str) -> Documents<'a> {
        match self.format {
            Format::Json => json::documents(file, self),
            Format::Yaml => yaml::documents(file, self),
        }
    }

    /// Returns the line and description of a common mistake in text that cannot be parsed: a template that was not rendered, or,
    /// in YAML, a line that is indented with a tab.
    fn common_mistake(self) -> Option<(usize, &'static str)> {
        let lines = || self.text.lines().enumerate().map(|(i, text)| (self.line + i, text));
        let is_template = |text: &str| text.contains("{{") && !text.trim_start().starts_with('#');
        let template = lines().find(|(_, text)| is_template(text)).map(|(line, _)| (line, TEMPLATE));
        let has_tab = |text: &str| {
            let indentation = &text[..text.len() - text.trim_start().len()];
            self.format == Format::Yaml && indentation.contains('\t') && !text.trim().is_empty()
        };
        let tab = lines().find(|(_, text)| has_tab(text)).map(|(line, _)| (line, TAB));
        tab.or(template)
    }

    fn error(self, file: &str, line: usize, message: impl fmt::Display) -> ManifestError {
        let message = message.to_string();
        ManifestError { file: file.to_owned(), line: line.max(self.line), message }
    }
}

const TEMPLATE: &str =
    "a template ({{ … }}), expected a manifest that was rendered, for example by helm template";
const TAB: &str = "a tab indents this line, expected spaces";

/// The `apiVersion` and `kind` of a list's items, which the items may omit.
struct ListItemType {
    api_version: String,
    /// The kind of the items; `None` in a plain `List`, whose items have it themselves.
    kind: Option<String>,
}

impl ListItemType {
    /// Returns the type of a list's items; `None` if the kind is not a list.
    fn from_list(api_version: &str, kind: &str) -> Option<ListItemType> {
        let item = kind.strip_suffix("List")?;
        let kind = (!item.is_empty()).then(|| item.to_owned());
        Some(ListItemType { api_version: api_version.to_owned(), kind })
    }

    /// Adds the type to an item that lacks it.
    fn complete(&self, value: &mut Value) {
        let (Some(kind), Value::Object(fields)) = (&self.kind, value) else { return };
        fields.entry("kind").or_insert_with(|| kind.clone().into());
        fields.entry("apiVersion").or_insert_with(|| self.api_version.clone().into());
    }
}

/// Checks that a value is an object with a kind and a valid name.
fn document(file: &str, chunk: Chunk<'_>, line: usize, value: Value) -> Result<Document, ManifestError> {
    if !value.is_object() {
        return Err(chunk.error(file, line, "expected an object with apiVersion, kind and metadata"));
    }
    let text = |field: &str| match value.get(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.as_str()),
        Some(other) => Err(chunk.error(file, line, format!("{field}: expected a string, found {other}"))),
        None => Err(chunk.error(
            file,
            line,
            format!("{field} is missing, expected for example apiVersion: v1 and kind: Service"),
        )),
    };
    let (api_version, kind) = (text("apiVersion")?, text("kind")?);
    let known = Kind::from_api(api_version, kind);
    if known.is_none()
        && let Some(mistake) = misspelled_kind(api_version, kind)
    {
        return Err(chunk.error(file, line, mistake));
    }
    let has_template = |field: &str| {
        let name = value.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_str);
        known.is_some() && name.is_some_and(|name| name.contains("{{"))
    };
    if let Some(field) = ["name", "namespace"].into_iter().find(|field| has_template(field)) {
        return Err(chunk.error(file, line, format!("metadata.{field}: {TEMPLATE}")));
    }
    Ok(Document { line, kind: known, value })
}

/// Returns the number of line breaks in a text.
fn lines_in(text: &str) -> usize {
    text.bytes().filter(|&b| b == b'\n').count()
}

#[cfg(test)]
mod tests;
