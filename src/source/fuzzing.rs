//! Access to the parsers of the API server's responses, for fuzz targets.

use portcullis_cluster::{Event, Kind};

use super::api::fuzzing;
use super::object_reader::ObjectReader;

/// Reads the chunks of a watch or a streaming list. Returns the events before the first error, and the error.
pub fn read_watch<'a>(
    kind: Kind,
    is_list: bool,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Event>, Option<String>) {
    fuzzing::read_watch(kind, is_list, chunks, &mut ObjectReader::new(kind))
}

/// Reads the pages of a list. Returns the events before the first error, and the error.
pub fn read_pages<'a>(kind: Kind, pages: impl Iterator<Item = &'a [u8]>) -> (Vec<Event>, Option<String>) {
    fuzzing::read_pages(kind, pages, &mut ObjectReader::new(kind))
}
