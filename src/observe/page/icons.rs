//! Icons, so that no state is shown by its color alone.

use maud::{Markup, html};

/// How good a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Good,
    Warning,
    Bad,
}

impl Level {
    /// Returns the class of the stylesheet.
    pub(super) fn class(self) -> &'static str {
        match self {
            Level::Good => "good",
            Level::Warning => "warning",
            Level::Bad => "bad",
        }
    }

    /// Returns the icon: a check mark, a triangle or a cross. The text next to it says the same.
    pub(super) fn icon(self) -> Markup {
        let path = match self {
            Level::Good => {
                "M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20Zm-1.6 14.6-4.2-4.2 1.7-1.7 2.5 2.5 5.6-5.6 1.7 1.7Z"
            }
            Level::Warning => "M12 2.5 1 21.5h22ZM11 9h2v6.5h-2Zm0 8h2v2h-2Z",
            Level::Bad => {
                "M8 2h8l6 6v8l-6 6H8l-6-6V8Zm.9 5L7.5 8.4 11 12l-3.5 3.6L8.9 17l3.6-3.6L16.1 17l1.4-1.4L14 12l3.5-3.6L16.1 7l-3.6 3.6Z"
            }
        };
        html! {
            svg viewBox="0 0 24 24" fill="currentColor" fill-rule="evenodd" aria-hidden="true" focusable="false" {
                path d=(path) {}
            }
        }
    }

    /// Returns a word with the icon.
    pub(super) fn state(self, word: &str) -> Markup {
        html! { span class={ "state " (self.class()) } { (self.icon()) (word) } }
    }
}

/// Returns the sign of the program, a gate.
pub(super) fn gate() -> Markup {
    html! {
        svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linejoin="round"
            aria-hidden="true" focusable="false" {
            path d="M4 21V10a8 8 0 0 1 16 0v11" {}
            path d="M8 4v14M12 2.5V20M16 4v14M4 11h16M4 16h16" {}
        }
    }
}
