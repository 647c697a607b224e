//! The state machine of listing and watching one kind.

use super::request_error::RequestError;

/// The next request for a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ListWatch {
    /// A streaming list: no objects are known, or the resourceVersion is too old.
    StreamingList {
        /// How many streaming lists in a row were interrupted.
        failed_streams: u32,
    },
    /// A paginated list, for servers that do not support streaming lists.
    PagedList {
        /// The continue token; `None` for the first page.
        next: Option<String>,
        /// Objects per page; 0 for all objects.
        size: u32,
    },
    /// A watch: all objects are known.
    Watch {
        /// The resourceVersion after which changes are requested.
        revision: String,
        /// How many watches in a row received no data.
        idle_watches: u32,
    },
}

/// After this number of interrupted streaming lists, an HTTP proxy between this program and the server probably limits the
/// duration of connections. Pages are shorter, and can continue after an error.
const MAX_FAILED_STREAMS: u32 = 3;

/// The largest page size before all objects are requested in one response.
const MAX_PAGE_SIZE: u32 = 5_000;

impl ListWatch {
    /// A full list from the beginning.
    pub(super) const START: ListWatch = ListWatch::StreamingList { failed_streams: 0 };

    /// Returns the next request after an error, and whether to send it immediately.
    pub(super) fn after(self, error: &RequestError, page: u32) -> (ListWatch, bool) {
        let paged = ListWatch::PagedList { next: None, size: page };
        match (self, error) {
            // Servers reject streaming lists in several ways: 400 or 422 (unknown option), 500 inside the stream (etcd
            // too old), or no data at all.
            (ListWatch::StreamingList { .. }, RequestError::Rejected(no))
                if !no.is_transient() || no.code == 500 =>
            {
                (paged, true)
            }
            (
                ListWatch::StreamingList { .. },
                RequestError::Malformed(_) | RequestError::TooLarge { .. } | RequestError::TimedOut(_),
            ) => (paged, true),
            (ListWatch::StreamingList { failed_streams }, RequestError::Disconnected(_))
                if failed_streams + 1 >= MAX_FAILED_STREAMS =>
            {
                (paged, false)
            }
            (ListWatch::StreamingList { failed_streams }, RequestError::Disconnected(_)) => {
                (ListWatch::StreamingList { failed_streams: failed_streams + 1 }, false)
            }
            (ListWatch::PagedList { next: Some(_), size }, RequestError::Rejected(no)) if no.is_expired() => {
                // The continue token expired before the list was complete: use larger pages.
                let size = size.saturating_mul(10);
                (
                    ListWatch::PagedList { next: None, size: if size > MAX_PAGE_SIZE { 0 } else { size } },
                    false,
                )
            }
            (ListWatch::PagedList { next: Some(_), size }, RequestError::Rejected(no))
                if !no.is_transient() =>
            {
                (ListWatch::PagedList { next: None, size }, false)
            }
            (ListWatch::PagedList { size, .. }, RequestError::EndlessList(_)) => {
                (ListWatch::PagedList { next: None, size }, false)
            }
            (ListWatch::Watch { .. }, RequestError::Rejected(no)) if !no.is_transient() => {
                (ListWatch::START, false)
            }
            (ListWatch::PagedList { size, .. }, RequestError::TooMany { .. }) => {
                (ListWatch::PagedList { next: None, size }, false)
            }
            (ListWatch::Watch { .. }, RequestError::Malformed(_) | RequestError::TooLarge { .. }) => {
                (ListWatch::START, false)
            }
            // One idle watch is a dead connection. Two may mean that the server has not reached the resourceVersion
            // because its etcd was restored from a backup: it would then send nothing for ever.
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
    fn transitions_after_errors() {
        let page = |next: Option<&str>, size| ListWatch::PagedList { next: next.map(str::to_owned), size };
        let watch = |idle_watches| ListWatch::Watch { revision: "7".into(), idle_watches };
        let stream = |failed_streams| ListWatch::StreamingList { failed_streams };
        let disconnected = || RequestError::Disconnected("reset".into());
        let malformed = || RequestError::Malformed("<".into());
        let too_large = || RequestError::TooLarge { what: "an object".into(), limit: 1 };
        let too_many = || RequestError::TooMany { plural: "pods", limit: 1 };
        let timed_out = || RequestError::TimedOut(Duration::from_secs(1));
        let rows = [
            ("cannot stream: unknown option", ListWatch::START, rejected(400), (page(None, 50), true)),
            ("cannot stream: forbidden option", ListWatch::START, rejected(422), (page(None, 50), true)),
            ("cannot stream: etcd", ListWatch::START, rejected(500), (page(None, 50), true)),
            ("a proxy's page", ListWatch::START, malformed(), (page(None, 50), true)),
            ("a list without end", ListWatch::START, timed_out(), (page(None, 50), true)),
            ("no credentials", ListWatch::START, rejected(401), (ListWatch::START, false)),
            ("too many requests", ListWatch::START, rejected(429), (ListWatch::START, false)),
            ("unavailable", ListWatch::START, rejected(503), (ListWatch::START, false)),
            ("interrupted list", ListWatch::START, disconnected(), (stream(1), false)),
            ("interrupted again", stream(1), disconnected(), (stream(2), false)),
            ("lists that are always interrupted", stream(2), disconnected(), (page(None, 50), false)),
            ("interrupted page", page(Some("t"), 50), disconnected(), (page(Some("t"), 50), false)),
            ("page token expired", page(Some("t"), 50), rejected(410), (page(None, 500), false)),
            ("larger page token expired", page(Some("t"), 5_000), rejected(410), (page(None, 0), false)),
            ("page token rejected", page(Some("t"), 50), rejected(400), (page(None, 50), false)),
            ("pages that repeat", page(Some("t"), 50), RequestError::EndlessList(2), (page(None, 50), false)),
            ("failing page", page(Some("t"), 50), rejected(500), (page(Some("t"), 50), false)),
            ("interrupted watch", watch(0), disconnected(), (watch(0), false)),
            ("failing watch", watch(0), rejected(500), (watch(0), false)),
            ("revision expired", watch(0), rejected(410), (ListWatch::START, false)),
            ("revision rejected", watch(0), rejected(400), (ListWatch::START, false)),
            ("malformed event", watch(0), malformed(), (ListWatch::START, false)),
            ("too large event", watch(0), too_large(), (ListWatch::START, false)),
            ("too large object in a list", ListWatch::START, too_large(), (page(None, 50), true)),
            ("too large object in a page", page(Some("t"), 50), too_large(), (page(Some("t"), 50), false)),
            ("too many objects in a list", ListWatch::START, too_many(), (ListWatch::START, false)),
            ("too many objects in pages", page(Some("t"), 50), too_many(), (page(None, 50), false)),
            ("idle watch", watch(0), timed_out(), (watch(1), true)),
            ("idle again", watch(1), timed_out(), (ListWatch::START, true)),
        ];
        for (case, state, error, expected) in rows {
            assert_eq!(state.after(&error, 50), expected, "{case}");
        }
    }
}
