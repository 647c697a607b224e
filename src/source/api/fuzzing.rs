//! Access to the parsers of watches and lists, for fuzz targets.

use portcullis_cluster::{Event, Kind};

use super::line_splitter::LineSplitter;
use super::list_page::{NextPage, PageReader};
use super::request_error::RequestError;
use super::watch_stream::WatchStream;
use crate::source::object_reader::ObjectReader;

pub(in crate::source) fn read_watch<'a>(
    kind: Kind,
    is_list: bool,
    mut chunks: impl Iterator<Item = &'a [u8]>,
    reader: &mut ObjectReader,
) -> (Vec<Event>, Option<String>) {
    let mut stream =
        if is_list { WatchStream::with_list(kind, reader) } else { WatchStream::after(kind, "1", reader) };
    let mut lines = LineSplitter::default();
    let read = chunks.try_for_each(|chunk| lines.push(kind.plural(), chunk, |line| stream.line(line)));
    (std::mem::take(&mut stream.events), read.err().map(|error| error.to_string()))
}

pub(in crate::source) fn read_pages<'a>(
    kind: Kind,
    pages: impl Iterator<Item = &'a [u8]>,
    reader: &mut ObjectReader,
) -> (Vec<Event>, Option<String>) {
    let mut events = Vec::new();
    for (number, page) in pages.enumerate() {
        match read_page(PageReader::new(kind, number == 0, reader), page, &mut events) {
            Ok(NextPage::Token(_)) => {}
            Ok(NextPage::End(_)) => break,
            Err(error) => return (events, Some(error.to_string())),
        }
    }
    (events, None)
}

/// Reads a page in two parts, and adds its events.
fn read_page(
    mut page: PageReader<'_>,
    body: &[u8],
    events: &mut Vec<Event>,
) -> Result<NextPage, RequestError> {
    let (first, second) = body.split_at(body.len() / 2);
    for bytes in [first, second] {
        let pushed = page.push(bytes);
        events.append(&mut page.events);
        pushed?;
    }
    let (last, next) = page.finish()?;
    events.extend(last);
    Ok(next)
}
