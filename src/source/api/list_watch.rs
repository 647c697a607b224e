//! Where a kind stands between its list and its watch, and what a error makes of that.

use super::request_error::RequestError;

/// What is asked of the server next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ListWatch {
    /// Nothing is known, or what is known is too old: a streaming list.
    StreamingList {
        /// How many in a row have broken before they were complete.
        failed_streams: u32,
    },
    /// The same from a server that has no streaming lists.
    PagedList {
        /// The token of the page; `None` for the first.
        next: Option<String>,
        /// Objects in a page; 0 for all at once.
        size: u32,
    },
    /// All objects are known; changes follow.
    Watch {
        /// The revision from which they follow.
        revision: String,
        /// How many watches in a row have heard nothing at all.
        idle_watches: u32,
    },
}

/// After so many streaming lists that broke, something between us and the server does not let them live
/// long enough; pages are shorter, and go on where they broke.
const MAX_FAILED_STREAMS: u32 = 3;

/// The largest page that is tried before all is asked for at once.
const MAX_PAGE_SIZE: u32 = 5_000;

impl ListWatch {
    /// A full list, from the beginning.
    pub(super) const START: ListWatch = ListWatch::StreamingList { failed_streams: 0 };

    /// What to do after a error, and whether to do it at once.
    pub(super) fn after(self, error: &RequestError, page: u32) -> (ListWatch, bool) {
        let paged = ListWatch::PagedList { next: None, size: page };
        match (self, error) {
            // A server that cannot stream says so in many ways: 400 or 422 (it does not know the option),
            // 500 inside the stream (its etcd cannot), or nothing at all.
            (ListWatch::StreamingList { .. }, RequestError::Rejected(no))
                if !no.may_pass() || no.code == 500 =>
            {
                (paged, true)
            }
            (ListWatch::StreamingList { .. }, RequestError::Malformed(_) | RequestError::TimedOut(_)) => {
                (paged, true)
            }
            (ListWatch::StreamingList { failed_streams }, RequestError::Disconnected(_))
                if failed_streams + 1 >= MAX_FAILED_STREAMS =>
            {
                (paged, false)
            }
            (ListWatch::StreamingList { failed_streams }, RequestError::Disconnected(_)) => {
                (ListWatch::StreamingList { failed_streams: failed_streams + 1 }, false)
            }
            (ListWatch::PagedList { next: Some(_), size }, RequestError::Rejected(no)) if no.is_expired() => {
                // The list outlives its continuation: fewer, larger pages.
                let size = size.saturating_mul(10);
                (
                    ListWatch::PagedList { next: None, size: if size > MAX_PAGE_SIZE { 0 } else { size } },
                    false,
                )
            }
            (ListWatch::PagedList { next: Some(_), size }, RequestError::Rejected(no)) if !no.may_pass() => {
                (ListWatch::PagedList { next: None, size }, false)
            }
            (ListWatch::Watch { .. }, RequestError::Rejected(no)) if !no.may_pass() => {
                (ListWatch::START, false)
            }
            (ListWatch::Watch { .. }, RequestError::Malformed(_)) => (ListWatch::START, false),
            // Once is a dead connection. Twice may be a revision that the server has not reached, because
            // its etcd came back from a backup: it waits in silence, for ever.
            (ListWatch::Watch { revision, idle_watches: 0 }, RequestError::TimedOut(_)) => {
                (ListWatch::Watch { revision, idle_watches: 1 }, true)
            }
            (ListWatch::Watch { .. }, RequestError::TimedOut(_)) => (ListWatch::START, true),
            (state, _) => (state, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::request_error::StatusError;
    use super::*;

    fn rejected(code: u16) -> RequestError {
        RequestError::Rejected(StatusError { code, ..StatusError::default() })
    }

    #[test]
    fn what_a_failure_makes_of_each_state() {
        let page = |next: Option<&str>, size| ListWatch::PagedList { next: next.map(str::to_owned), size };
        let watch = |silent| ListWatch::Watch { revision: "7".into(), idle_watches: silent };
        let stream = |failed_streams| ListWatch::StreamingList { failed_streams };
        let broken = || RequestError::Disconnected("reset".into());
        let garbage = || RequestError::Malformed("<".into());
        let silent = || RequestError::TimedOut(Duration::from_secs(1));
        let rows = [
            ("cannot stream: unknown option", ListWatch::START, rejected(400), (page(None, 50), true)),
            ("cannot stream: forbidden option", ListWatch::START, rejected(422), (page(None, 50), true)),
            ("cannot stream: etcd", ListWatch::START, rejected(500), (page(None, 50), true)),
            ("a proxy's page", ListWatch::START, garbage(), (page(None, 50), true)),
            ("a list without end", ListWatch::START, silent(), (page(None, 50), true)),
            ("no credentials", ListWatch::START, rejected(401), (ListWatch::START, false)),
            ("too many requests", ListWatch::START, rejected(429), (ListWatch::START, false)),
            ("not there yet", ListWatch::START, rejected(503), (ListWatch::START, false)),
            ("broken list", ListWatch::START, broken(), (stream(1), false)),
            ("broken list again", stream(1), broken(), (stream(2), false)),
            ("lists that always break", stream(2), broken(), (page(None, 50), false)),
            ("broken page", page(Some("t"), 50), broken(), (page(Some("t"), 50), false)),
            ("page token expired", page(Some("t"), 50), rejected(410), (page(None, 500), false)),
            ("larger page token expired", page(Some("t"), 5_000), rejected(410), (page(None, 0), false)),
            ("page token not understood", page(Some("t"), 50), rejected(400), (page(None, 50), false)),
            ("failing page", page(Some("t"), 50), rejected(500), (page(Some("t"), 50), false)),
            ("broken watch", watch(0), broken(), (watch(0), false)),
            ("failing watch", watch(0), rejected(500), (watch(0), false)),
            ("revision expired", watch(0), rejected(410), (ListWatch::START, false)),
            ("revision not understood", watch(0), rejected(400), (ListWatch::START, false)),
            ("garbage", watch(0), garbage(), (ListWatch::START, false)),
            ("silent watch", watch(0), silent(), (watch(1), true)),
            ("silent again", watch(1), silent(), (ListWatch::START, true)),
        ];
        for (case, state, error, expected) in rows {
            assert_eq!(state.after(&error, 50), expected, "{case}");
        }
    }
}
