//! Planned faults of the server.

/// A planned fault, for the first matching request unless [`Fault::times`] is called.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(super) kind: FaultKind,
    words: Vec<String>,
    times: usize,
}

#[derive(Clone, Debug)]
pub(super) enum FaultKind {
    /// An error response with a `Status` object.
    Status { code: u16, retry_after: Option<u64> },
    /// Any text with any status.
    Text { code: u16, text: String },
    /// A response that is interrupted.
    Interrupt { text: String },
    /// No response, on a connection that stays open.
    Hang,
}

impl Fault {
    fn new(kind: FaultKind) -> Self {
        Fault { kind, words: Vec::new(), times: 1 }
    }

    /// An error response with a `Status` object.
    pub(crate) fn status(code: u16) -> Self {
        Fault::new(FaultKind::Status { code, retry_after: None })
    }

    /// Any text.
    pub(crate) fn text(code: u16, text: &str) -> Self {
        Fault::new(FaultKind::Text { code, text: text.to_owned() })
    }

    /// A response with status 200 that is interrupted after this text.
    pub(crate) fn interrupt(text: &str) -> Self {
        Fault::new(FaultKind::Interrupt { text: text.to_owned() })
    }

    /// No response, on a connection that stays open.
    pub(crate) fn hang() -> Self {
        Fault::new(FaultKind::Hang)
    }

    /// Restricts the fault to requests whose path and query contain `word`; may be called several times.
    pub(crate) fn on(mut self, word: &str) -> Self {
        self.words.push(word.to_owned());
        self
    }

    /// Sets the number of requests.
    pub(crate) fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Adds Retry-After, in seconds, to an error response.
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        if let FaultKind::Status { retry_after, .. } = &mut self.kind {
            *retry_after = Some(seconds);
        }
        self
    }

    /// Returns the fault for a request and counts it.
    pub(super) fn take(faults: &mut Vec<Fault>, uri: &str) -> Option<FaultKind> {
        let at = faults.iter().position(|fault| fault.words.iter().all(|word| uri.contains(word)))?;
        let fault = &mut faults[at];
        fault.times -= 1;
        let kind = fault.kind.clone();
        if fault.times == 0 {
            faults.remove(at);
        }
        Some(kind)
    }
}
