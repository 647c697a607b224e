//! Prints rendered rules: as text that tools can restore, or as parts of a document.

use std::fmt::Display;
use std::io::{self, Write};

use portcullis_cluster::Family;
use serde::Serialize;

/// Prints rules part by part.
pub(crate) enum RulesPrinter<'a> {
    /// Writes the text of each part, with its heading.
    Text(&'a mut dyn Write),
    /// Collects the parts for a document.
    Document(Vec<RulesPart>),
}

/// A part of the rules, as one tool prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RulesPart {
    /// The tool whose syntax it has: `iptables-save`, `ipset`, `ipvsadm`, `ip` or `nft`.
    format: &'static str,
    /// The IP family; `null` if the part has objects of both.
    family: Option<&'static str>,
    text: String,
}

impl RulesPrinter<'_> {
    /// Prints a part. A heading is a comment line before its text.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn part(
        &mut self,
        format: &'static str,
        family: Option<Family>,
        heading: Option<&dyn Display>,
        text: impl Display,
    ) -> io::Result<()> {
        match self {
            RulesPrinter::Text(out) => {
                if let Some(heading) = heading {
                    writeln!(out, "# {heading}")?;
                }
                write!(out, "{text}")
            }
            RulesPrinter::Document(parts) => {
                let family = family.map(Family::as_str);
                parts.push(RulesPart { format, family, text: text.to_string() });
                Ok(())
            }
        }
    }
}
