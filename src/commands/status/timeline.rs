//! `portcullis status --since`: what happened recently.

use std::io::{self, Write};
use std::time::Duration;

use jiff::Timestamp;

use super::{StatusError, client, duration, print_document};
use crate::config::{Config, OutputFormat};
use crate::observe::local_api::documents::{TimelineDocument, TimelineEntry};

/// More entries than the daemon keeps.
const LIMIT: usize = 10_000;

/// Prints what happened since a time ago, oldest first.
///
/// # Errors
/// [`StatusError`]
pub(crate) fn run(
    config: &Config,
    since: Duration,
    format: OutputFormat,
    out: &mut dyn Write,
) -> Result<(), StatusError> {
    // A time before the calendar begins is before the start of the daemon.
    let from = Timestamp::now().checked_sub(since).map_or_else(|_| "0".to_owned(), |from| from.to_string());
    let path = format!("/v1/timeline?since={from}&limit={LIMIT}");
    let document: TimelineDocument =
        client(config)?.get(&path, "Timeline").map_err(|error| StatusError::NoDaemon(error.to_string()))?;
    match format {
        OutputFormat::Text => Ok(print(&document, since, out)?),
        _ => print_document(&document, format, false, out),
    }
}

fn print(document: &TimelineDocument, since: Duration, out: &mut dyn Write) -> io::Result<()> {
    if document.entries.is_empty() {
        return writeln!(out, "nothing happened in the last {}", duration::format(since.as_secs_f64()));
    }
    let subjects = document.entries.iter().map(|entry| subject(entry).chars().count());
    let width = subjects.chain([HEAD.len()]).max().unwrap_or_default();
    writeln!(out, "{:19}  {HEAD:width$}  EVENT", "TIME (UTC)")?;
    for entry in &document.entries {
        let time = entry.time.strftime("%Y-%m-%d %H:%M:%S");
        // Messages of other programs may have control characters.
        let text: String = entry.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        writeln!(out, "{time}  {:width$}  {}", subject(entry), text.trim_end())?;
    }
    match document.discarded {
        0 => Ok(()),
        number => writeln!(out, "{number} older entries are no longer kept"),
    }
}

/// The head of the column of [`subject`].
const HEAD: &str = "RULES";

/// Returns the set of rules that an entry is about, or its component.
fn subject(entry: &TimelineEntry) -> &str {
    entry.rules.as_deref().unwrap_or(&entry.component)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::local_api::documents::samples;

    #[test]
    fn entries_have_a_line_each() {
        let mut document = samples::timeline();
        document.entries[1].text.push_str("\n\x1b[31m");
        let printed = |document: &TimelineDocument| {
            let mut text = Vec::new();
            print(document, Duration::from_secs(600), &mut text).expect("a Vec takes everything");
            String::from_utf8(text).expect("it prints UTF-8")
        };
        let text = printed(&document);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "TIME (UTC)           RULES  EVENT");
        assert!(lines[1].ends_with("  IPv4   2 changed objects, 3.1ms"), "{text}");
        assert!(lines[2].ends_with("had changed  [31m"), "{text}");
        assert_eq!(lines.len(), 3 + usize::from(document.discarded > 0), "{text}");
        document.entries.clear();
        assert_eq!(printed(&document), "nothing happened in the last 10 min\n");
    }
}
