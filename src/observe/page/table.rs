//! Tables with captions and headers, which become cards on narrow screens.

use maud::{Markup, html};

/// A column: its header, and whether it has numbers.
pub(super) struct Column(pub(super) &'static str, pub(super) Align);

/// The alignment of a column.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Text,
    Number,
}

/// Returns a column of text.
pub(super) const fn text(header: &'static str) -> Column {
    Column(header, Align::Text)
}

/// Returns a column of numbers, which are aligned to the right.
pub(super) const fn number(header: &'static str) -> Column {
    Column(header, Align::Number)
}

/// The caption of a table.
#[derive(Clone, Copy)]
pub(super) enum Caption<'a> {
    /// A caption above the table.
    Shown(&'a str),
    /// A caption for screen readers only, as the heading before the table says the same.
    Hidden(&'a str),
}

/// Returns a table with these rows, or a sentence if there are none.
pub(super) fn table(caption: Caption<'_>, columns: &[Column], rows: &[Markup], if_empty: &str) -> Markup {
    if rows.is_empty() {
        return html! { p .empty { (if_empty) } };
    }
    html! {
        div .scroll {
            table .cards {
                @match caption {
                    Caption::Shown(text) => caption .shown { (text) },
                    Caption::Hidden(text) => caption .hidden { (text) },
                }
                thead {
                    tr {
                        @for Column(header, align) in columns {
                            th scope="col" class=[(*align == Align::Number).then_some("number")] { (header) }
                        }
                    }
                }
                tbody { @for row in rows { (row) } }
            }
        }
    }
}
