//! Terminal colors.

use anstyle::{AnsiColor, Style};

/// Wraps text in ANSI escape sequences, if enabled.
pub(crate) struct Colors {
    pub(crate) enabled: bool,
}

impl Colors {
    fn with(&self, style: Style, text: &str) -> String {
        if self.enabled { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    pub(crate) fn dim(&self, text: &str) -> String {
        self.with(Style::new().dimmed(), text)
    }

    pub(crate) fn red(&self, text: &str) -> String {
        self.with(AnsiColor::Red.on_default(), text)
    }

    pub(crate) fn green(&self, text: &str) -> String {
        self.with(AnsiColor::Green.on_default(), text)
    }
}
