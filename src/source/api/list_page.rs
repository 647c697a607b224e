//! Pages of a paginated list.

use std::borrow::Cow;

use portcullis_cluster::{Event, Kind};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::request_error::RequestError;
use crate::source::object_reader::ObjectReader;

/// A parsed page.
pub(super) struct Page {
    /// Its objects; the first page also has `ListStarted`, the last one `Listed`.
    pub(super) events: Vec<Event>,
    /// How to continue the list.
    pub(super) next: NextPage,
}

/// The page after a page.
pub(super) enum NextPage {
    /// The `continue` token of the next page.
    Token(String),
    /// The last page; the resourceVersion of the list.
    End(String),
}

#[derive(Deserialize)]
struct ListBody<'a> {
    #[serde(default, borrow)]
    kind: Cow<'a, str>,
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

/// Parses a page. Its objects are parsed one by one, so that an invalid object does not affect the others.
pub(super) fn read(
    kind: Kind,
    first: bool,
    body: &[u8],
    reader: &mut ObjectReader,
) -> Result<Page, RequestError> {
    let list: ListBody = serde_json::from_slice(body)
        .map_err(|e| RequestError::Malformed(format!("a page of {}: {e}", kind.plural())))?;
    if list.kind.strip_suffix("List").is_some_and(|item| item != kind.as_str() && !item.is_empty()) {
        let (expected, found) = (kind.as_str(), &list.kind);
        return Err(RequestError::Malformed(format!("expected a {expected}List, found a {found}")));
    }
    let items = list.items.unwrap_or_default();
    let mut events = Vec::with_capacity(items.len() + 2);
    if first {
        reader.list_started();
        events.push(Event::ListStarted(kind));
    }
    // The page is well-formed JSON, so every item is.
    events.extend(
        items.iter().map(|item| reader.applied(serde_json::from_str(item.get()).unwrap_or_default())),
    );
    let next = if list.metadata.r#continue.is_empty() {
        reader.listed();
        events.push(Event::Listed(kind));
        NextPage::End(list.metadata.resource_version)
    } else {
        NextPage::Token(list.metadata.r#continue)
    };
    Ok(Page { events, next })
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::ObjectKey;

    use super::*;

    #[test]
    fn unreadable_object_does_not_affect_the_others() {
        let body = br#"{"metadata": {"resourceVersion": "9"}, "items": [
            {"metadata": {"name": "a"}}, {"metadata": {"name": "b"}, "spec": {"ports": 7}}, 8, {"metadata": {"name": "c"}}]}"#;
        let mut reader = ObjectReader::new(Kind::Service);
        let page = read(Kind::Service, true, body, &mut reader).expect("the page itself is well formed");
        assert_eq!(page.events.len(), 6, "{:?}", page.events);
        assert_eq!(page.events[3], Event::Unreadable(ObjectKey::unnamed(Kind::Service)));
        assert_eq!(reader.invalid().unreadable.len(), 2);
        assert!(matches!(page.next, NextPage::End(revision) if revision == "9"));
    }

    #[test]
    fn other_bodies_than_lists_are_malformed() {
        for body in [
            "",
            "<html>",
            "[]",
            "{\"items\": []}",
            "{\"metadata\": {\"resourceVersion\": \"1\"}, \"items\": [{]}",
            "{\"kind\": \"NodeList\", \"metadata\": {\"resourceVersion\": \"1\"}, \"items\": []}",
        ] {
            let read = read(Kind::Service, true, body.as_bytes(), &mut ObjectReader::new(Kind::Service));
            assert!(matches!(read, Err(RequestError::Malformed(_))), "{body:?}");
        }
    }
}
