//! The output of a program, as lines of limited length.

use std::collections::VecDeque;

use super::error::ProgramErrorKind;

/// The length of the longest line in bytes.
const MAX_LINE: usize = 64 * 1024;

/// The number of lines of error output that are kept.
const ERROR_LINES: usize = 20;

/// The length in bytes to which lines of error output are cut.
const ERROR_LINE: usize = 1024;

/// Divides output into lines.
#[derive(Default)]
pub(super) struct Lines {
    /// The beginning of a line whose end is not known yet.
    rest: Vec<u8>,
}

impl Lines {
    /// Adds output, and calls `line` with each line that ends in it.
    ///
    /// # Errors
    /// A line is too long.
    pub(super) fn push(&mut self, bytes: &[u8], line: &mut dyn FnMut(&str)) -> Result<(), ProgramErrorKind> {
        let mut bytes = bytes;
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (text, after) = (&bytes[..end], &bytes[end + 1..]);
            if self.rest.is_empty() {
                line(&String::from_utf8_lossy(text));
            } else {
                self.rest.extend_from_slice(text);
                line(&String::from_utf8_lossy(&self.rest));
                self.rest.clear();
            }
            bytes = after;
        }
        self.rest.extend_from_slice(bytes);
        if self.rest.len() > MAX_LINE {
            Err(ProgramErrorKind::TooMuchOutput(MAX_LINE as u64))
        } else {
            Ok(())
        }
    }

    /// Calls `line` with a last line that has no newline.
    pub(super) fn finish(self, line: &mut dyn FnMut(&str)) {
        if !self.rest.is_empty() {
            line(&String::from_utf8_lossy(&self.rest));
        }
    }
}

/// The last lines of error output.
#[derive(Default)]
pub(super) struct ErrorOutput {
    lines: VecDeque<Vec<u8>>,
    rest: Vec<u8>,
}

impl ErrorOutput {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.end_line();
            } else if self.rest.len() < ERROR_LINE {
                self.rest.push(*byte);
            }
        }
    }

    fn end_line(&mut self) {
        if self.lines.len() == ERROR_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(std::mem::take(&mut self.rest));
    }

    /// Returns the lines.
    pub(super) fn into_text(mut self) -> String {
        if !self.rest.is_empty() {
            self.end_line();
        }
        String::from_utf8_lossy(&Vec::from(self.lines).join(&b'\n')).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_divided_into_lines_wherever_it_is_read() {
        let text = b"*nat\n:KUBE-\xff \n\nCOMMIT";
        for size in 1..=text.len() {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            let mut line = |text: &str| found.push(text.to_owned());
            text.chunks(size).for_each(|chunk| lines.push(chunk, &mut line).expect("short lines"));
            lines.finish(&mut line);
            assert_eq!(found, ["*nat", ":KUBE-\u{fffd} ", "", "COMMIT"], "{size}");
        }
    }

    #[test]
    fn endless_line_is_an_error() {
        let mut lines = Lines::default();
        let results: Vec<bool> =
            (0..3).map(|_| lines.push(&[b'x'; MAX_LINE / 2], &mut |_| ()).is_ok()).collect();
        assert_eq!(results, [true, true, false]);
    }

    #[test]
    fn last_lines_of_error_output_are_kept() {
        let mut output = ErrorOutput::default();
        for n in 0..1_000 {
            output.push(format!("line {n} {}\n", "x".repeat(2 * ERROR_LINE)).as_bytes());
        }
        output.push(b"bad \xff");
        let text = output.into_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0].len(), lines[19]), (ERROR_LINES, ERROR_LINE, "bad \u{fffd}"));
        assert!(lines[0].starts_with("line 981 "), "{}", lines[0]);
    }
}
