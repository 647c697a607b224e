//! Replaces secrets in text.
//!
//! ```text
//! known secrets (kubeconfig, token and key files, environment), each raw, escaped and in base64 ─┐
//!                                                                                                ├─► replaced
//! patterns (PEM, tokens, URLs with a password, `password: …`) ───────────────────────────────────┘
//! ```
//!
//! The patterns find secrets that are not known; the known ones are found in any surrounding.

mod known_secrets;
mod patterns;

use std::path::PathBuf;

use aho_corasick::{AhoCorasick, BuildError};

use self::known_secrets::KnownSecrets;
use self::patterns::Pattern;

/// The text that replaces a secret.
pub(super) const REDACTED: &str = "<redacted>";

/// Replaces known secrets, and text that looks like one.
pub(super) struct Redactor {
    known: AhoCorasick,
    patterns: Vec<Pattern>,
}

impl Redactor {
    /// Reads the secrets of the files that this node's configuration names, and of the environment. A file that cannot be read has
    /// no secrets that could be in the archive.
    ///
    /// # Errors
    /// There are too many secrets.
    pub(super) fn new(kubeconfig: Option<PathBuf>, manifests: Option<PathBuf>) -> Result<Self, BuildError> {
        let mut secrets = KnownSecrets::default();
        secrets.add_environment();
        secrets.add_service_account();
        kubeconfig.iter().for_each(|path| secrets.add_kubeconfig(path));
        manifests.iter().for_each(|path| secrets.add_manifests(path));
        Ok(Redactor { known: secrets.search()?, patterns: patterns::all() })
    }

    /// Returns the text without secrets, and the number of replacements.
    pub(super) fn redact(&self, text: &str) -> (String, usize) {
        let (mut count, mut replaced) = (0, String::with_capacity(text.len()));
        self.known.replace_all_with(text, &mut replaced, |_, _, out| {
            count += 1;
            out.push_str(REDACTED);
            true
        });
        let mut text = replaced;
        for pattern in &self.patterns {
            text = pattern.redact(&text, &mut count);
        }
        (text, count)
    }
}

#[cfg(test)]
mod tests;
