//! Where a kind stands between its list and its watch, and what a failure makes of that.

use super::failure::Failure;

/// What is asked of the server next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing is known, or what is known is too old: a streaming list.
    Stream {
        /// How many in a row have broken before they were complete.
        broken: u32,
    },
    /// The same from a server that has no streaming lists.
    Page {
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
        silent: u32,
    },
}

/// After so many streaming lists that broke, something between us and the server does not let them live
/// long enough; pages are shorter, and go on where they broke.
const BROKEN_STREAMS: u32 = 3;

/// The largest page that is tried before all is asked for at once.
const LARGEST_PAGE: u32 = 5_000;

impl State {
    /// A full list, from the beginning.
    pub(super) const LIST: State = State::Stream { broken: 0 };

    /// What to do after a failure, and whether to do it at once.
    pub(super) fn after(self, failure: &Failure, page: u32) -> (State, bool) {
        let by_pages = State::Page { next: None, size: page };
        match (self, failure) {
            // A server that cannot stream says so in many ways: 400 or 422 (it does not know the option),
            // 500 inside the stream (its etcd cannot), or nothing at all.
            (State::Stream { .. }, Failure::Refused(no)) if !no.may_pass() || no.code == 500 => {
                (by_pages, true)
            }
            (State::Stream { .. }, Failure::Garbage(_) | Failure::Silent(_)) => (by_pages, true),
            (State::Stream { broken }, Failure::Broken(_)) if broken + 1 >= BROKEN_STREAMS => {
                (by_pages, false)
            }
            (State::Stream { broken }, Failure::Broken(_)) => (State::Stream { broken: broken + 1 }, false),
            (State::Page { next: Some(_), size }, Failure::Refused(no)) if no.is_expired() => {
                // The list outlives its continuation: fewer, larger pages.
                let size = size.saturating_mul(10);
                (State::Page { next: None, size: if size > LARGEST_PAGE { 0 } else { size } }, false)
            }
            (State::Page { next: Some(_), size }, Failure::Refused(no)) if !no.may_pass() => {
                (State::Page { next: None, size }, false)
            }
            (State::Watch { .. }, Failure::Refused(no)) if !no.may_pass() => (State::LIST, false),
            (State::Watch { .. }, Failure::Garbage(_)) => (State::LIST, false),
            // Once is a dead connection. Twice may be a revision that the server has not reached, because
            // its etcd came back from a backup: it waits in silence, for ever.
            (State::Watch { revision, silent: 0 }, Failure::Silent(_)) => {
                (State::Watch { revision, silent: 1 }, true)
            }
            (State::Watch { .. }, Failure::Silent(_)) => (State::LIST, true),
            (state, _) => (state, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::failure::Refusal;
    use super::*;

    fn refused(code: u16) -> Failure {
        Failure::Refused(Refusal { code, ..Refusal::default() })
    }

    #[test]
    fn what_a_failure_makes_of_each_state() {
        let page = |next: Option<&str>, size| State::Page { next: next.map(str::to_owned), size };
        let watch = |silent| State::Watch { revision: "7".into(), silent };
        let stream = |broken| State::Stream { broken };
        let broken = || Failure::Broken("reset".into());
        let garbage = || Failure::Garbage("<".into());
        let silent = || Failure::Silent(Duration::from_secs(1));
        let rows = [
            ("cannot stream: unknown option", State::LIST, refused(400), (page(None, 50), true)),
            ("cannot stream: forbidden option", State::LIST, refused(422), (page(None, 50), true)),
            ("cannot stream: etcd", State::LIST, refused(500), (page(None, 50), true)),
            ("a proxy's page", State::LIST, garbage(), (page(None, 50), true)),
            ("a list without end", State::LIST, silent(), (page(None, 50), true)),
            ("no credentials", State::LIST, refused(401), (State::LIST, false)),
            ("too many requests", State::LIST, refused(429), (State::LIST, false)),
            ("not there yet", State::LIST, refused(503), (State::LIST, false)),
            ("broken list", State::LIST, broken(), (stream(1), false)),
            ("broken list again", stream(1), broken(), (stream(2), false)),
            ("lists that always break", stream(2), broken(), (page(None, 50), false)),
            ("broken page", page(Some("t"), 50), broken(), (page(Some("t"), 50), false)),
            ("page token expired", page(Some("t"), 50), refused(410), (page(None, 500), false)),
            ("larger page token expired", page(Some("t"), 5_000), refused(410), (page(None, 0), false)),
            ("page token not understood", page(Some("t"), 50), refused(400), (page(None, 50), false)),
            ("failing page", page(Some("t"), 50), refused(500), (page(Some("t"), 50), false)),
            ("broken watch", watch(0), broken(), (watch(0), false)),
            ("failing watch", watch(0), refused(500), (watch(0), false)),
            ("revision expired", watch(0), refused(410), (State::LIST, false)),
            ("revision not understood", watch(0), refused(400), (State::LIST, false)),
            ("garbage", watch(0), garbage(), (State::LIST, false)),
            ("silent watch", watch(0), silent(), (watch(1), true)),
            ("silent again", watch(1), silent(), (State::LIST, true)),
        ];
        for (case, state, failure, expected) in rows {
            assert_eq!(state.after(&failure, 50), expected, "{case}");
        }
    }
}
