//! Splits the body of a list into its items as it arrives, so that memory depends on the largest object and not on the page.

use super::limits::{MAX_LIST_ENVELOPE, MAX_OBJECT};
use super::request_error::RequestError;

/// A splitter of one body: `{"metadata": {…}, "items": [ITEM, ITEM]}`.
#[derive(Debug, Default)]
pub(super) struct ListSplitter {
    /// The body without the items.
    envelope: Vec<u8>,
    /// The item that has not ended yet.
    item: Vec<u8>,
    /// How many objects and lists are open.
    depth: usize,
    string: StringState,
    /// Where the last string of the envelope begins. A string before a colon is the name of a field.
    string_start: usize,
    /// The last field of the list itself is `items`.
    is_items_field: bool,
    is_in_items: bool,
    /// The last item was followed by a comma.
    needs_item: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StringState {
    #[default]
    Outside,
    Inside,
    /// After a backslash.
    Escape,
}

impl ListSplitter {
    /// Calls `each` for each item that ends in `bytes`, with the list before its items. `plural` is the kind, for errors.
    ///
    /// # Errors
    /// An item, or the rest of the list, is too large, or an item is missing.
    pub(super) fn push(
        &mut self,
        plural: &str,
        bytes: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), RequestError>,
    ) -> Result<(), RequestError> {
        // Bytes from here on belong to the item or the envelope, and are not copied yet.
        let mut copied = 0;
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.string {
                StringState::Inside => {
                    // Most bytes of an object are in strings.
                    let length = memchr::memchr2(b'"', b'\\', &bytes[at..]);
                    at += length.unwrap_or(bytes.len() - at);
                    match bytes.get(at) {
                        Some(b'"') => self.string = StringState::Outside,
                        Some(_) => self.string = StringState::Escape,
                        None => break,
                    }
                }
                StringState::Escape => self.string = StringState::Inside,
                StringState::Outside => match byte {
                    b'"' => {
                        self.string = StringState::Inside;
                        if !self.is_in_items {
                            self.copy(plural, &bytes[copied..at])?;
                            copied = at;
                            self.string_start = self.envelope.len();
                        }
                    }
                    b':' if self.depth == 1 => {
                        self.copy(plural, &bytes[copied..at])?;
                        copied = at;
                        let name = self.envelope[self.string_start..].trim_ascii();
                        self.is_items_field = name == b"\"items\"";
                    }
                    b'{' | b'[' => {
                        if self.depth == 1 && self.is_items_field && byte == b'[' {
                            self.copy(plural, &bytes[copied..=at])?;
                            copied = at + 1;
                            self.is_in_items = true;
                        }
                        self.depth += 1;
                    }
                    b',' if self.is_in_items && self.depth == 2 => {
                        self.copy(plural, &bytes[copied..at])?;
                        copied = at + 1;
                        self.end_item(plural, true, &mut each)?;
                    }
                    b'}' | b']' => {
                        self.depth = self.depth.saturating_sub(1);
                        if self.is_in_items && self.depth == 1 {
                            self.copy(plural, &bytes[copied..at])?;
                            copied = at;
                            self.end_item(plural, false, &mut each)?;
                            (self.is_in_items, self.is_items_field) = (false, false);
                        }
                    }
                    _ => {}
                },
            }
            at += 1;
        }
        self.copy(plural, &bytes[copied..])
    }

    /// Appends bytes to the item, or to the envelope.
    fn copy(&mut self, plural: &str, bytes: &[u8]) -> Result<(), RequestError> {
        let (part, limit, what) = match self.is_in_items {
            true => (&mut self.item, MAX_OBJECT, "an object"),
            false => (&mut self.envelope, MAX_LIST_ENVELOPE, "a list without its items"),
        };
        if part.len() + bytes.len() > limit {
            return Err(RequestError::TooLarge { what: format!("{what} in a list of {plural}"), limit });
        }
        part.extend_from_slice(bytes);
        Ok(())
    }

    /// Returns the list without its items.
    pub(super) fn into_envelope(self) -> Vec<u8> {
        self.envelope
    }

    fn end_item(
        &mut self,
        plural: &str,
        is_followed: bool,
        each: &mut impl FnMut(&[u8], &[u8]) -> Result<(), RequestError>,
    ) -> Result<(), RequestError> {
        let item = self.item.trim_ascii();
        let is_missing = item.is_empty() && (is_followed || self.needs_item);
        if is_missing {
            return Err(RequestError::Malformed(format!("a page of {plural}: an empty item")));
        }
        if !item.is_empty() {
            each(&self.envelope, item)?;
        }
        self.needs_item = is_followed;
        self.item.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(body: &str, chunk: usize) -> Result<(Vec<String>, String), RequestError> {
        let (mut splitter, mut items) = (ListSplitter::default(), Vec::new());
        for bytes in body.as_bytes().chunks(chunk) {
            splitter.push("pods", bytes, |_, item| {
                items.push(String::from_utf8_lossy(item).into_owned());
                Ok(())
            })?;
        }
        Ok((items, String::from_utf8_lossy(&splitter.into_envelope()).into_owned()))
    }

    #[test]
    fn items_do_not_depend_on_the_chunks_of_the_body() {
        // Body, its items, and the rest.
        let rows: [(&str, &[&str], &str); 8] = [
            (r#"{"a":[1,{}],"items":[]}"#, &[], r#"{"a":[1,{}],"items":[]}"#),
            (r#"{"items":null,"b":"c"}"#, &[], r#"{"items":null,"b":"c"}"#),
            (
                r#"{"metadata": {"items": [7]}, "items" : [ {"a": [1, 2]} , {"b": "]},{"} ] }"#,
                &[r#"{"a": [1, 2]}"#, r#"{"b": "]},{"}"#],
                r#"{"metadata": {"items": [7]}, "items" : [] }"#,
            ),
            (
                r#"{"items":["\"","\\"],"metadata":{}}"#,
                &[r#""\"""#, r#""\\""#],
                r#"{"items":[],"metadata":{}}"#,
            ),
            (r#"{"items":[[[]],{"items":[1]}]}"#, &["[[]]", r#"{"items":[1]}"#], r#"{"items":[]}"#),
            (r#"{"items":[1,2]"#, &["1", "2"], r#"{"items":[]"#),
            ("<html>", &[], "<html>"),
            ("[1,2]", &[], "[1,2]"),
        ];
        for (body, expected, rest) in rows {
            for chunk in [1, 2, 7, body.len()] {
                let (items, envelope) = split(body, chunk).expect(body);
                assert_eq!(
                    (items.as_slice(), &*envelope),
                    (&*expected.iter().map(ToString::to_string).collect::<Vec<_>>(), rest),
                    "{body} by {chunk}"
                );
            }
        }
    }

    #[test]
    fn missing_items_are_malformed() {
        for body in [r#"{"items":[,1]}"#, r#"{"items":[1,,2]}"#, r#"{"items":[1,]}"#] {
            assert!(matches!(split(body, 3), Err(RequestError::Malformed(_))), "{body}");
        }
    }

    #[test]
    fn error_names_the_kind_and_the_limit() {
        let long = "x".repeat(MAX_OBJECT + 1);
        let rows = [
            (format!(r#"{{"items":[1,"{long}"]}}"#), "an object in a list of pods has more than 16 MiB"),
            (
                format!(r#"{{"metadata":"{long}"}}"#),
                "a list without its items in a list of pods has more than 64 KiB",
            ),
            (long.clone(), "a list without its items in a list of pods has more than 64 KiB"),
        ];
        for (body, expected) in rows {
            let error = split(&body, 1 << 20).expect_err("it is too large").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
