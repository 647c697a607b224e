//! The timeline: syncs, drift, isolation and failures of sources.

use maud::{Markup, html};

use super::format::{self, counted};
use super::icons::Level;
use super::layout::{Page, Part};
use super::query::link;
use super::table::{Caption, Column, number, table, text};
use crate::observe::local_api::documents::{EntryType, TimelineDocument, TimelineEntry};

/// The number of entries that the page shows.
pub(super) const LIMIT: usize = 500;

const COLUMNS: [Column; 5] =
    [text("Time (UTC)"), text("Event"), text("Component"), text("Details"), number("Duration")];

/// Returns the page. `is_brief`: routine syncs are left out.
pub(super) fn page(document: &TimelineDocument, is_brief: bool) -> Page {
    let shown: Vec<&TimelineEntry> =
        document.entries.iter().rev().filter(|entry| !is_brief || !entry.r#type.is_routine()).collect();
    let older = document.discarded as usize + document.omitted;
    let caption = match is_brief {
        true => format!("{}, newest first, without routine syncs", counted(shown.len(), "event")),
        false => format!("{}, newest first", counted(shown.len(), "event")),
    };
    let content = html! {
        h1 { "Timeline" }
        p .note {
            "Syncs, changes by other processes that were restored, rejected objects, and failures of the API server or of manifests, \
             since the start of the daemon. "
            @if is_brief { a href=(Part::Timeline.path()) { "Show routine syncs as well" } }
            @else { a href=(link(Part::Timeline.path(), [("brief", "yes")])) { "Leave out routine syncs" } }
        }
        (entries(Caption::Shown(&caption), &shown, "Nothing happened yet."))
        @if older > 0 { p .note { (counted(older, "older event")) " not shown." } }
    };
    Page { title: "Timeline".to_owned(), part: Some(Part::Timeline), refreshes: true, content }
}

/// Returns a table of entries.
pub(super) fn entries(caption: Caption<'_>, entries: &[&TimelineEntry], if_empty: &str) -> Markup {
    let rows: Vec<Markup> = entries.iter().map(|entry| row(entry)).collect();
    table(caption, &COLUMNS, &rows, if_empty)
}

fn row(entry: &TimelineEntry) -> Markup {
    let (level, word) = kind(entry.r#type);
    html! {
        tr {
            th scope="row" { (format::time(entry.time)) }
            td data-label="Event" {
                @match level {
                    Some(level) => (level.state(word)),
                    None => span .state .none { (word) },
                }
            }
            td data-label="Component" {
                (entry.component)
                @if let Some(rules) = &entry.rules { " · " (rules) }
            }
            td .reason data-label="Details" { (entry.text) }
            td .number data-label="Duration" {
                @if let Some(seconds) = entry.duration_seconds { (format::duration(seconds)) }
            }
        }
    }
}

fn kind(kind: EntryType) -> (Option<Level>, &'static str) {
    match kind {
        EntryType::Started => (None, "started"),
        EntryType::Sync => (None, "sync"),
        EntryType::SyncFailed => (Some(Level::Bad), "sync failed"),
        EntryType::Drift => (Some(Level::Warning), "drift"),
        EntryType::Isolated => (Some(Level::Bad), "isolated"),
        EntryType::NoLongerIsolated => (Some(Level::Good), "no longer isolated"),
        EntryType::SourceFailed => (Some(Level::Bad), "source failed"),
        EntryType::SourceRecovered => (Some(Level::Good), "source recovered"),
        EntryType::Relisted => (None, "listed again"),
    }
}
