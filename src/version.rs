//! The version of the program, and the commit from which it was built.

use std::io::{self, Write};

use serde::Serialize;

use crate::config::OutputFormat;
use crate::document::Document;

/// The version of Portcullis.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The kube-proxy release that it replaces.
pub const KUBE_PROXY: &str = "v1.36.2";

/// The commit from which it was built; `None` if that is unknown, as in a build from an archive.
pub const COMMIT: Option<&str> = match env!("PORTCULLIS_COMMIT").as_bytes() {
    b"unknown" => None,
    _ => Some(env!("PORTCULLIS_COMMIT")),
};

/// The content of the document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    version: &'static str,
    commit: Option<&'static str>,
    kube_proxy: &'static str,
}

/// Returns the version as text.
pub fn version() -> String {
    format!("Portcullis v{VERSION} (commit {}, kube-proxy {KUBE_PROXY})", COMMIT.unwrap_or("unknown"))
}

/// Prints the version.
///
/// # Errors
/// The output cannot be written.
pub(crate) fn print(output: OutputFormat, out: &mut dyn Write) -> io::Result<()> {
    match output.document_format() {
        None => writeln!(out, "{}", version()),
        Some(format) => {
            let content = Version { version: VERSION, commit: COMMIT, kube_proxy: KUBE_PROXY };
            Document::new("Version", content).print(format, out)
        }
    }
}
