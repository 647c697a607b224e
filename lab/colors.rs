//! Terminal colors.

/// Wraps text in ANSI escape sequences, if enabled.
pub(crate) struct Colors {
    pub(crate) enabled: bool,
}

impl Colors {
    fn with(&self, code: &str, text: &str) -> String {
        if self.enabled { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }

    pub(crate) fn dim(&self, text: &str) -> String {
        self.with("2", text)
    }

    pub(crate) fn red(&self, text: &str) -> String {
        self.with("31", text)
    }

    pub(crate) fn green(&self, text: &str) -> String {
        self.with("32", text)
    }
}
