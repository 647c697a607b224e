//! Manifests: text to documents. Pure; who reads the files and keeps the last good version is elsewhere.
//!
//! ```text
//! text ─split─► Chunk (one `---` document, or one JSON value) ─documents─► Document (one object)
//! ```
//!
//! A text is cut into chunks before anything is parsed, so a malformed document costs only itself. All
//! line numbers are those of the file, counted from 1.

mod json;
mod kind;
mod yaml;

use std::fmt;

use serde_json::Value;

use crate::object::Kind;
pub use kind::misspelled_kind;

/// One object of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The line on which it begins.
    pub line: usize,
    /// Its kind; `None` where it is one that we do not use.
    pub kind: Option<Kind>,
    /// All of it.
    pub value: Value,
}

/// Why a document cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct ManifestError {
    /// The file, as its reader named it.
    pub file: String,
    /// The line of the fault where it is known, else that on which the document begins.
    pub line: usize,
    /// What is wrong, and what was expected.
    pub message: String,
}

/// The text of one document, not parsed yet.
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

/// Documents, or what is wrong with them, in their order.
pub type Documents<'a> = Box<dyn Iterator<Item = Result<Document, ManifestError>> + 'a>;

/// All objects of a text. `file` is named in errors, and its ending `.json` makes the text JSON (one value
/// or several); everything else is YAML.
pub fn parse<'a>(file: &'a str, text: &'a str) -> impl Iterator<Item = Result<Document, ManifestError>> + 'a {
    split(file, text).into_iter().flat_map(move |chunk| chunk.documents(file))
}

/// Cuts a text into its documents; empty ones and those of comments only are left out.
pub fn split<'a>(file: &str, text: &'a str) -> Vec<Chunk<'a>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if file.ends_with(".json") { json::split(text) } else { yaml::split(text) }
}

impl<'a> Chunk<'a> {
    /// Its objects: one, or those of a list (`List`, `ServiceList` and the like). ParsedObject as they are taken.
    pub fn documents(self, file: &'a str) -> Documents<'a> {
        match self.format {
            Format::Json => json::documents(file, self),
            Format::Yaml => yaml::documents(file, self),
        }
    }

    /// The usual causes of text that cannot be parsed, and the line of the first: a template that was not rendered, or,
    /// in YAML, a line that is indented by a tab.
    fn usual_cause(self) -> Option<(usize, &'static str)> {
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

/// What a list says of its items, which need not repeat it.
struct ListOf {
    api_version: String,
    /// The items' kind; `None` in a plain `List`, whose items say it themselves.
    kind: Option<String>,
}

impl ListOf {
    /// Whether an object of this kind is a list.
    fn of(api_version: &str, kind: &str) -> Option<ListOf> {
        let item = kind.strip_suffix("List")?;
        let kind = (!item.is_empty()).then(|| item.to_owned());
        Some(ListOf { api_version: api_version.to_owned(), kind })
    }

    /// Gives an item the kind that its list says.
    fn complete(&self, value: &mut Value) {
        let (Some(kind), Value::Object(fields)) = (&self.kind, value) else { return };
        fields.entry("kind").or_insert_with(|| kind.clone().into());
        fields.entry("apiVersion").or_insert_with(|| self.api_version.clone().into());
    }
}

/// An object, once it is known to be one.
fn document(file: &str, chunk: Chunk<'_>, line: usize, value: Value) -> Result<Document, ManifestError> {
    if !value.is_object() {
        return Err(chunk.error(file, line, "expected an object with apiVersion, kind and metadata"));
    }
    let text = |field: &str| match value.get(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.as_str()),
        Some(other) => {
            Err(chunk.error(file, line, format!("{field}: {other} stands where text was expected")))
        }
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

/// The number of line ends in a text.
fn lines_in(text: &str) -> usize {
    text.bytes().filter(|&b| b == b'\n').count()
}

#[cfg(test)]
mod tests;
