//! Access to the parsers of watches and lists, for fuzz targets.

use portcullis_cluster::{Event, Kind};

use super::line_splitter::LineSplitter;
use super::list_page::{self, NextPage};
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
    let read = chunks.try_for_each(|chunk| lines.push(chunk, |line| stream.line(line)));
    (std::mem::take(&mut stream.events), read.err().map(|error| error.to_string()))
}

pub(in crate::source) fn read_pages<'a>(
    kind: Kind,
    pages: impl Iterator<Item = &'a [u8]>,
    reader: &mut ObjectReader,
) -> (Vec<Event>, Option<String>) {
    let mut events = Vec::new();
    for (number, page) in pages.enumerate() {
        match list_page::read(kind, number == 0, page, reader) {
            Ok(page) => {
                events.extend(page.events);
                if let NextPage::End(_) = page.next {
                    break;
                }
            }
            Err(error) => return (events, Some(error.to_string())),
        }
    }
    (events, None)
}
