//! What goes wrong on purpose.

/// A planned fault. It meets the first requests that fit, once unless more is said.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(super) what: What,
    words: Vec<String>,
    times: usize,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// A refusal with a `Status` object.
    Status { code: u16, retry_after: Option<u64> },
    /// Any text with any status.
    Text { code: u16, text: String },
    /// An answer that breaks off.
    BreakOff { text: String },
    /// No answer at all, and the connection stays open.
    Hang,
}

impl Fault {
    fn new(what: What) -> Self {
        Fault { what, words: Vec::new(), times: 1 }
    }

    /// A refusal, as the API server words it.
    pub(crate) fn status(code: u16) -> Self {
        Fault::new(What::Status { code, retry_after: None })
    }

    /// Any text.
    pub(crate) fn text(code: u16, text: &str) -> Self {
        Fault::new(What::Text { code, text: text.to_owned() })
    }

    /// An answer with status 200 that breaks off after this text.
    pub(crate) fn break_off(text: &str) -> Self {
        Fault::new(What::BreakOff { text: text.to_owned() })
    }

    /// No answer, while the connection stays open.
    pub(crate) fn hang() -> Self {
        Fault::new(What::Hang)
    }

    /// Only requests of which the path and query contain this; may be said several times.
    pub(crate) fn on(mut self, word: &str) -> Self {
        self.words.push(word.to_owned());
        self
    }

    /// How many requests it meets.
    pub(crate) fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Sends Retry-After, in seconds, with a refusal.
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        if let What::Status { retry_after, .. } = &mut self.what {
            *retry_after = Some(seconds);
        }
        self
    }

    /// Takes the fault that meets a request.
    pub(super) fn take(faults: &mut Vec<Fault>, uri: &str) -> Option<What> {
        let at = faults.iter().position(|fault| fault.words.iter().all(|word| uri.contains(word)))?;
        let fault = &mut faults[at];
        fault.times -= 1;
        let what = fault.what.clone();
        if fault.times == 0 {
            faults.remove(at);
        }
        Some(what)
    }
}
