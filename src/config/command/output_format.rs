//! Output formats of commands.

use clap::ValueEnum;

use crate::document::DocumentFormat;

/// Output format.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// Text for people
    #[default]
    Text,
    /// JSON for programs
    Json,
    /// YAML for programs
    Yaml,
}

impl OutputFormat {
    /// Returns the syntax of a document; `None` for text.
    pub fn document_format(self) -> Option<DocumentFormat> {
        match self {
            OutputFormat::Text => None,
            OutputFormat::Json => Some(DocumentFormat::Json),
            OutputFormat::Yaml => Some(DocumentFormat::Yaml),
        }
    }
}
