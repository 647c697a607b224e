//! One page of a list.

use portcullis_cluster::{Event, Kind};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::failure::Failure;
use crate::source::report::Reader;

/// What a page brought.
pub(super) struct Page {
    /// Its objects. The first page begins the list, the last one ends it.
    pub(super) events: Vec<Event>,
    /// Where the list goes on.
    pub(super) then: Then,
}

/// What follows a page.
pub(super) enum Then {
    /// Another page, by its token.
    Next(String),
    /// Nothing: this is the revision of the list.
    End(String),
}

#[derive(Deserialize)]
struct Wire<'a> {
    metadata: Metadata,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
    #[serde(default)]
    r#continue: String,
}

/// Reads a page. Its objects are read one by one, so that one that cannot be read costs only itself.
pub(super) fn read(kind: Kind, first: bool, body: &[u8], reader: &mut Reader) -> Result<Page, Failure> {
    let wire: Wire = serde_json::from_slice(body)
        .map_err(|e| Failure::Garbage(format!("a page of {}: {e}", kind.plural())))?;
    let items = wire.items.unwrap_or_default();
    let mut events = Vec::with_capacity(items.len() + 2);
    if first {
        reader.list_started();
        events.push(Event::ListStarted(kind));
    }
    // The page as a whole is well-formed JSON, so every item is.
    events.extend(
        items.iter().map(|item| reader.applied(serde_json::from_str(item.get()).unwrap_or_default())),
    );
    let then = if wire.metadata.r#continue.is_empty() {
        reader.listed();
        events.push(Event::Listed(kind));
        Then::End(wire.metadata.resource_version)
    } else {
        Then::Next(wire.metadata.r#continue)
    };
    Ok(Page { events, then })
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::ObjectKey;

    use super::*;

    #[test]
    fn an_unreadable_object_costs_only_itself() {
        let body = br#"{"metadata": {"resourceVersion": "9"}, "items": [
            {"metadata": {"name": "a"}}, {"metadata": {"name": "b"}, "spec": {"ports": 7}}, 8, {"metadata": {"name": "c"}}]}"#;
        let mut reader = Reader::new(Kind::Service);
        let page = read(Kind::Service, true, body, &mut reader).expect("the page itself is well formed");
        assert_eq!(page.events.len(), 6, "{:?}", page.events);
        assert_eq!(page.events[3], Event::Unreadable(ObjectKey::unnamed(Kind::Service)));
        assert_eq!(reader.doubtful().unreadable.len(), 2);
        assert!(matches!(page.then, Then::End(revision) if revision == "9"));
    }

    #[test]
    fn what_is_no_list_is_garbage() {
        for body in [
            "",
            "<html>",
            "[]",
            "{\"items\": []}",
            "{\"metadata\": {\"resourceVersion\": \"1\"}, \"items\": [{]}",
        ] {
            let read = read(Kind::Service, true, body.as_bytes(), &mut Reader::new(Kind::Service));
            assert!(matches!(read, Err(Failure::Garbage(_))), "{body:?}");
        }
    }
}
