//! Responses of the API server.

use portcullis::source::fuzzing;
use portcullis_cluster::{Event, Index, Kind};

use super::input::Input;

/// Reads the lines of a watch or a streaming list, in chunks. The first bytes choose the kind, whether it is a list, and the
/// sizes of the chunks.
pub(crate) fn watch_lines(input: &[u8]) {
    let mut input = Input(input);
    let kind = Kind::ALL[input.below(Kind::ALL.len())];
    let is_list = input.byte() % 2 == 0;
    let size = usize::from(input.byte()) + 1;
    let text = input.0;
    let (events, error) = fuzzing::read_watch(kind, is_list, text.chunks(size));
    if let Some(error) = error {
        assert!(!error.is_empty() && error.chars().count() < 1_200, "{error}");
    }
    // The chunks do not matter.
    let (whole, _) = fuzzing::read_watch(kind, is_list, [text].into_iter());
    assert_eq!(events, whole);
    apply(kind, events);
}

/// Reads the pages of a list, which a line feed each separates.
pub(crate) fn list_pages(input: &[u8]) {
    let mut input = Input(input);
    let kind = Kind::ALL[input.below(Kind::ALL.len())];
    let (events, error) = fuzzing::read_pages(kind, input.0.split(|byte| *byte == b'\n'));
    if let Some(error) = error {
        assert!(error.contains(kind.plural()) && error.chars().count() < 1_200, "{error}");
    }
    apply(kind, events);
}

/// Applies events to an index, as the daemon does.
fn apply(kind: Kind, events: Vec<Event>) {
    let mut index = Index::new();
    for event in events {
        let of = match &event {
            Event::Applied(object) => object.key().kind,
            Event::Deleted(key) | Event::Unreadable(key) => key.kind,
            Event::ListStarted(kind) | Event::Listed(kind) => *kind,
        };
        assert_eq!(of, kind);
        index.handle(event);
    }
}
