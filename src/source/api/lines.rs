//! Cuts a stream of bytes into lines.

use super::failure::Failure;

/// The longest line that is taken in, in bytes. An object is at most 1.5 MiB in etcd.
const LONGEST: usize = 16 << 20;

/// What remains in memory between lines, in bytes.
const KEPT: usize = 64 << 10;

/// The line that has begun and not ended yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Gives each line that ends in `bytes` to `each`, without its end. Empty lines are left out.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&b| b == b'\n') {
            if self.begun.is_empty() {
                give(&rest[..end], &mut each)?;
            } else {
                self.begun.extend_from_slice(&rest[..end]);
                give(&self.begun, &mut each)?;
                self.begun.clear();
                self.begun.shrink_to(KEPT);
            }
            rest = &rest[end + 1..];
        }
        if self.begun.len() + rest.len() > LONGEST {
            return Err(Failure::Garbage(format!("a line of more than {} MiB", LONGEST >> 20)));
        }
        self.begun.extend_from_slice(rest);
        Ok(())
    }

    /// Whether a line has begun that has not ended.
    pub(super) fn in_mid_line(&self) -> bool {
        !self.begun.is_empty()
    }
}

fn give(line: &[u8], each: &mut impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
    let line = line.trim_ascii();
    if line.is_empty() { Ok(()) } else { each(line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_the_bytes_are_cut() {
        let text = b"one\ntwo\r\n\nthree and more\nlast";
        for size in 1..=text.len() {
            let (mut lines, mut got) = (Lines::default(), Vec::new());
            for piece in text.chunks(size) {
                let each = |line: &[u8]| {
                    got.push(String::from_utf8_lossy(line).into_owned());
                    Ok(())
                };
                lines.take(piece, each).expect("no line is long");
            }
            assert_eq!(got, ["one", "two", "three and more"], "in pieces of {size}");
            assert!(lines.in_mid_line());
        }
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; 1 << 20];
        let taken = (0..100).take_while(|_| lines.take(&piece, |_| Ok(())).is_ok()).count();
        assert_eq!(taken, 16);
    }
}
