//! Pages of a paginated list.

use std::borrow::Cow;

use portcullis_cluster::json_object::decode_object;
use portcullis_cluster::{Event, Kind};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::list_splitter::ListSplitter;
use super::request_error::RequestError;
use crate::source::object_reader::{InvalidObjects, ObjectReader};

/// A reader of a page. Its objects are parsed one by one as they arrive, so that an invalid object does not affect the others.
pub(super) struct PageReader<'a> {
    kind: Kind,
    reader: &'a mut ObjectReader,
    splitter: ListSplitter,
    /// The kind of the list was compared with the kind of the reader, if the list had it before its items.
    is_kind_checked: bool,
    /// `ListStarted` was not returned yet; false for the pages after the first.
    starts_list: bool,
    /// Parsed events that the caller has not taken yet.
    pub(super) events: Vec<Event>,
}

/// The page after a page.
pub(super) enum NextPage {
    /// The `continue` token of the next page.
    Token(String),
    /// The last page; the resourceVersion of the list.
    End(String),
}

#[derive(Deserialize)]
struct ListBody {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct ListKind<'a> {
    #[serde(default, borrow)]
    kind: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
    #[serde(default)]
    r#continue: String,
}

impl<'a> PageReader<'a> {
    /// A reader of the first page of a list, or of another one.
    pub(super) fn new(kind: Kind, is_first: bool, reader: &'a mut ObjectReader) -> Self {
        PageReader {
            kind,
            reader,
            splitter: ListSplitter::default(),
            is_kind_checked: false,
            starts_list: is_first,
            events: Vec::new(),
        }
    }

    /// The invalid objects if they have changed, see [`ObjectReader::take_invalid`].
    pub(super) fn take_invalid(&mut self) -> Option<InvalidObjects> {
        self.reader.take_invalid()
    }

    /// Reads the next bytes of the body.
    ///
    /// # Errors
    /// The body is not a list, or exceeds a limit.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), RequestError> {
        let PageReader { kind, reader, splitter, is_kind_checked, starts_list, events } = self;
        let plural = kind.plural();
        splitter.push(plural, bytes, |before, item| {
            if !std::mem::replace(is_kind_checked, true) {
                check_kind(*kind, &[before, b"]}"].concat())?;
            }
            begin(*kind, starts_list, reader, events);
            let event = match reader.parse_text(item) {
                Some(parsed) => reader.applied_parsed(parsed),
                None => {
                    // The API server sends UTF-8. Only the object with other bytes is affected by them.
                    let text = String::from_utf8_lossy(item);
                    let object = decode_object(&text);
                    if object.is_err() {
                        serde_json::from_str::<&RawValue>(&text).map_err(|error| malformed(*kind, &error))?;
                    }
                    reader.applied(object)
                }
            };
            events.push(event);
            reader.exceeded_limit().map_or(Ok(()), |limit| Err(RequestError::TooMany { plural, limit }))
        })
    }

    /// Ends the page: the last one of a list has the event `Listed`.
    ///
    /// # Errors
    /// The body is not a list.
    pub(super) fn finish(mut self) -> Result<(Vec<Event>, NextPage), RequestError> {
        let body = self.splitter.into_envelope();
        check_kind(self.kind, &body)?;
        let ListBody { metadata } =
            serde_json::from_slice(&body).map_err(|error| malformed(self.kind, &error))?;
        begin(self.kind, &mut self.starts_list, self.reader, &mut self.events);
        if !metadata.r#continue.is_empty() {
            return Ok((self.events, NextPage::Token(metadata.r#continue)));
        }
        self.reader.listed();
        self.events.push(Event::Listed(self.kind));
        Ok((self.events, NextPage::End(metadata.resource_version)))
    }
}

fn begin(kind: Kind, starts_list: &mut bool, reader: &mut ObjectReader, events: &mut Vec<Event>) {
    if std::mem::take(starts_list) {
        reader.list_started();
        events.push(Event::ListStarted(kind));
    }
}

/// Returns an error if a list without its items is of another kind. It may have no kind, and may be malformed.
fn check_kind(kind: Kind, list: &[u8]) -> Result<(), RequestError> {
    match serde_json::from_slice::<ListKind<'_>>(list) {
        Ok(list)
            if list
                .kind
                .strip_suffix("List")
                .is_some_and(|item| item != kind.as_str() && !item.is_empty()) =>
        {
            let (expected, found) = (kind.as_str(), &list.kind);
            Err(RequestError::Malformed(format!("expected a {expected}List, found a {found}")))
        }
        _ => Ok(()),
    }
}

fn malformed(kind: Kind, error: &serde_json::Error) -> RequestError {
    RequestError::Malformed(format!("a page of {}: {error}", kind.plural()))
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::ObjectKey;

    use super::*;

    fn read(body: &[u8], reader: &mut ObjectReader) -> Result<(Vec<Event>, NextPage), RequestError> {
        let mut page = PageReader::new(Kind::Service, true, reader);
        body.chunks(50).try_for_each(|bytes| page.push(bytes))?;
        page.finish()
    }

    #[test]
    fn unreadable_object_does_not_affect_the_others() {
        let body = br#"{"metadata": {"resourceVersion": "9"}, "items": [
            {"metadata": {"name": "a"}}, {"metadata": {"name": "b"}, "spec": {"ports": 7}}, 8, {"metadata": {"name": "c"}}]}"#;
        let mut reader = ObjectReader::new(Kind::Service);
        let (events, next) = read(body, &mut reader).expect("the page itself is well formed");
        assert_eq!(events.len(), 6, "{events:?}");
        assert_eq!(events[3], Event::Unreadable(ObjectKey::unnamed(Kind::Service)));
        assert_eq!(reader.take_invalid().map(|invalid| invalid.unreadable.len()), Some(2));
        assert!(matches!(next, NextPage::End(revision) if revision == "9"));
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
            "{\"kind\": \"NodeList\", \"metadata\": {\"resourceVersion\": \"1\"}, \"items\": [{\"metadata\": {\"name\": \"a\"}}]}",
        ] {
            let read = read(body.as_bytes(), &mut ObjectReader::new(Kind::Service)).map(|(events, _)| events);
            assert!(matches!(read, Err(RequestError::Malformed(_))), "{body:?}: {read:?}");
        }
    }
}
