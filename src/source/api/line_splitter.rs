//! Splits a stream of bytes into lines.

use super::limits::MAX_OBJECT;
use super::request_error::RequestError;

/// The capacity of the buffer that is kept between lines, in bytes.
const RETAINED_CAPACITY: usize = 64 << 10;

/// A buffer for the line of which the end has not arrived yet.
#[derive(Debug, Default)]
pub(super) struct LineSplitter {
    partial: Vec<u8>,
}

impl LineSplitter {
    /// Calls `each` for each line that ends in `bytes`, without its line end. Empty lines are skipped. `plural` is the kind, for
    /// errors.
    pub(super) fn push(
        &mut self,
        plural: &str,
        bytes: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), RequestError>,
    ) -> Result<(), RequestError> {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            if self.partial.is_empty() {
                emit(&rest[..end], &mut each)?;
            } else {
                self.partial.extend_from_slice(&rest[..end]);
                emit(&self.partial, &mut each)?;
                self.partial.clear();
                self.partial.shrink_to(RETAINED_CAPACITY);
            }
            rest = &rest[end + 1..];
        }
        if self.partial.len() + rest.len() > MAX_OBJECT {
            return Err(RequestError::TooLarge {
                what: format!("an event in a watch of {plural}"),
                limit: MAX_OBJECT,
            });
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// Returns true if the last line has not ended.
    pub(super) fn has_partial_line(&self) -> bool {
        !self.partial.is_empty()
    }
}

fn emit(line: &[u8], each: &mut impl FnMut(&[u8]) -> Result<(), RequestError>) -> Result<(), RequestError> {
    let line = line.trim_ascii();
    if line.is_empty() { Ok(()) } else { each(line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_do_not_depend_on_the_chunks_of_the_stream() {
        let text = b"one\ntwo\r\n\nthree and more\nlast";
        for size in 1..=text.len() {
            let (mut lines, mut got) = (LineSplitter::default(), Vec::new());
            for piece in text.chunks(size) {
                let each = |line: &[u8]| {
                    got.push(String::from_utf8_lossy(line).into_owned());
                    Ok(())
                };
                lines.push("pods", piece, each).expect("no line is long");
            }
            assert_eq!(got, ["one", "two", "three and more"], "in pieces of {size}");
            assert!(lines.has_partial_line());
        }
    }

    #[test]
    fn too_long_line_is_an_error() {
        let mut lines = LineSplitter::default();
        let piece = vec![b'x'; 1 << 20];
        let taken = (0..100).take_while(|_| lines.push("pods", &piece, |_| Ok(())).is_ok()).count();
        assert_eq!(taken, 16);
        let error = lines.push("pods", &piece, |_| Ok(())).expect_err("it is too long").to_string();
        assert!(error.contains("an event in a watch of pods has more than 16 MiB"), "{error}");
    }
}
