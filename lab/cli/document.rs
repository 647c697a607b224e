//! Documents: the output for programs, in the style of those of `portcullis`.

use serde::Serialize;

/// A document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a, T> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    content: &'a T,
}

/// The format of the output.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    /// Text for people
    #[default]
    Text,
    /// JSON for programs
    Json,
    /// YAML for programs
    Yaml,
}

/// Returns a document; `None` for text.
pub(super) fn document(format: OutputFormat, kind: &'static str, content: &impl Serialize) -> Option<String> {
    let document = Document { api_version: "portcullis.io/v1", kind, content };
    const REASON: &str = "documents have only texts for keys";
    match format {
        OutputFormat::Text => None,
        OutputFormat::Json => Some(serde_json::to_string_pretty(&document).expect(REASON) + "\n"),
        OutputFormat::Yaml => Some(serde_saphyr::to_string(&document).expect(REASON)),
    }
}
