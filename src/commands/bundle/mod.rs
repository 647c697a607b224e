//! `portcullis bundle`: a support archive with all that is needed to examine this node elsewhere, without secrets.
//!
//! ```text
//! parts (local API, HTTP, rules, kernel, log, configuration) ─► Redactor ─► Archive (tar.gz) ─► index.json
//!   each on a thread, with a limit of its time and size
//! ```
//!
//! It needs no running daemon: a part that cannot be collected is listed in the index with the reason.

mod archive;
mod configuration_parts;
mod daemon_parts;
mod index;
mod kernel_parts;
mod local_api_parts;
mod log_parts;
mod part;
mod redaction;
mod rule_parts;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use portcullis_modes::external_program;

use self::archive::Archive;
use self::index::{Index, PartStatus};
use self::part::{PART_LIMIT, Part, PartError};
use self::redaction::Redactor;
use crate::config::{Bundle, Config, Invocation, Source};
use crate::document::{Document, DocumentFormat};
use crate::node;
use crate::progress_bar;

/// The time limit of a program that a part runs.
const PROGRAM_LIMIT: Duration = Duration::from_secs(10);

/// An error that prevents the archive.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The archive cannot be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// Without knowing the secrets, nothing may be written.
    #[error("cannot search for secrets: {0}")]
    Secrets(String),
    /// No part could be collected.
    #[error("nothing could be collected: {0}")]
    Nothing(String),
}

/// Writes the archive. Returns true if all parts are in it.
///
/// # Errors
/// There is no archive.
pub fn run(invocation: &Invocation, bundle: &Bundle) -> Result<bool, BundleError> {
    let created = Timestamp::now();
    let config = invocation.without_invalid.clone();
    let node = node::name(&config).map_or_else(|_| "unknown".to_owned(), |name| name.to_string());
    let folder = format!("portcullis-{}-{}", file_name(&node), created.strftime("%Y%m%dT%H%M%SZ"));
    let path = match &bundle.output {
        Some(path) if path == Path::new("-") => None,
        Some(path) => Some(path.clone()),
        None => Some(PathBuf::from(format!("{folder}.tar.gz"))),
    };
    let shown = path.clone().unwrap_or_else(|| "standard output".into());
    let failed = |source| BundleError::Archive { path: shown.clone(), source };
    let redactor = redactor(&config).map_err(BundleError::Secrets)?;
    let mut archive = Archive::create(path.as_deref(), folder, created).map_err(failed)?;
    external_program::set_time_limit(PROGRAM_LIMIT);
    let mut index = Index::new(node, created);
    let parts = parts(invocation, config, bundle);
    progress_bar::start_steps(parts.len(), "collecting");
    for part in parts {
        let (name, description) = (part.name.clone(), part.description);
        let mut collected = part.collect(PART_LIMIT);
        let (text, mut count) = redactor.redact(&String::from_utf8_lossy(&collected.bytes));
        collected.bytes = text.into_bytes();
        let reason = collected.error.as_ref().map(|error| {
            let (PartError::NotApplicable(reason) | PartError::Failed(reason)) = error;
            let (reason, more) = redactor.redact(reason);
            count += more;
            reason
        });
        if collected.error.is_none() || !collected.bytes.is_empty() {
            archive.add(&name, &collected.bytes).map_err(failed)?;
        }
        index.add(name, description, &collected, reason, count);
        progress_bar::step();
    }
    progress_bar::finish();
    let missing = print_missing(&index);
    if index.parts.iter().all(|part| part.bytes == 0) {
        archive.discard();
        return Err(BundleError::Nothing(missing.join("; ")));
    }
    let is_complete = index.complete;
    let mut text = Vec::new();
    Document::new("BundleIndex", index).print(DocumentFormat::Json, &mut text).map_err(failed)?;
    archive.add("index.json", &text).map_err(failed)?;
    archive.finish().map_err(failed)?;
    crate::logging::final_message(&format!("portcullis: wrote {}", shown.display()));
    Ok(is_complete)
}

/// Prints the parts that are missing. Returns them with their reasons.
fn print_missing(index: &Index) -> Vec<String> {
    let failed = index.parts.iter().filter(|part| part.status == PartStatus::Failed);
    let missing: Vec<String> = failed
        .map(|part| format!("{}: {}", part.name, part.reason.as_deref().unwrap_or("unknown reason")))
        .collect();
    for line in &missing {
        crate::logging::final_message(&format!("portcullis: missing or incomplete: {line}"));
    }
    missing
}

fn redactor(config: &Config) -> Result<Redactor, String> {
    let (kubeconfig, manifests) = match &config.source {
        Source::Manifests(path) => (None, Some(path.clone())),
        Source::ApiServer(api) => (api.kubeconfig.clone(), None),
    };
    Redactor::new(kubeconfig, manifests).map_err(|error| error.to_string())
}

fn parts(invocation: &Invocation, config: Config, bundle: &Bundle) -> Vec<Part> {
    let config = Arc::new(config);
    let mut parts = configuration_parts::parts(invocation);
    parts.extend(local_api_parts::parts(&config));
    parts.extend(daemon_parts::http_parts(&config));
    parts.extend(log_parts::parts(&bundle.log_files, &bundle.unit));
    parts.extend(kernel_parts::parts());
    parts.extend(rule_parts::parts(&config, invocation.config.is_ok()));
    parts
}

/// Returns a name with characters that are safe in a file name only.
fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '-' }).collect()
}
