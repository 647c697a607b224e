//! The sources: lists and watches of the API server, or manifests, by kind of object.

use maud::{Markup, html};

use super::format::{self, counted};
use super::icons::Level;
use super::layout::{Page, Part};
use super::table::{Caption, Column, number, table, text};
use crate::observe::local_api::documents::{SourceStatus, StatusDocument};

const COLUMNS: [Column; 6] =
    [text("Kind"), text("State"), text("Last contact"), number("Lists"), number("Failures"), text("Problem")];

/// Returns the page.
pub(super) fn page(status: &StatusDocument) -> Page {
    let rows: Vec<Markup> = status.sources.iter().map(row).collect();
    let caption = counted(rows.len(), "kind") + " of objects";
    let content = html! {
        h1 { "Sources" }
        p .note {
            "Objects come from: " code { (status.node.source) } ". "
            "If a source does not respond, the rules in the kernel stay as they are."
        }
        (table(Caption::Shown(&caption), &COLUMNS, &rows, "No kind of object has been requested yet."))
    };
    Page { title: "Sources".to_owned(), part: Some(Part::Sources), refreshes: true, content }
}

/// Returns the state of a source, as one word.
pub(super) fn state(source: &SourceStatus) -> (Level, &'static str) {
    match source {
        SourceStatus { error: Some(_), .. } => (Level::Bad, "failing"),
        SourceStatus { unreadable: 1.., .. } => (Level::Warning, "some unreadable"),
        SourceStatus { unserved: true, .. } => (Level::Good, "not served"),
        SourceStatus { listed: false, .. } => (Level::Warning, "not listed yet"),
        _ => (Level::Good, "listed"),
    }
}

fn row(source: &SourceStatus) -> Markup {
    let (level, word) = state(source);
    html! {
        tr {
            th scope="row" { (source.kind) }
            td data-label="State" { (level.state(word)) }
            td data-label="Last contact" {
                @match source.last_contact_age_seconds {
                    Some(seconds) => (format::age(seconds)),
                    None => "never",
                }
            }
            td .number data-label="Lists" { (format::number(source.lists)) }
            td .number data-label="Failures" { (format::number(source.failures)) }
            td .reason data-label="Problem" {
                @if let Some(error) = &source.error { (error) }
                @if source.unreadable > 0 {
                    " " (counted(source.unreadable, "object")) " cannot be read; the last version stays in use."
                }
                @if source.unserved { "The API server does not serve this kind, which is optional." }
            }
        }
    }
}
