//! JSON manifests: a sequence of values.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Deserializer, Value};

use super::{Chunk, Documents, Format, ListItemType, MAX_DOCUMENTS, document, lines_in};

/// Splits a text into values. The rest after a malformed value is one chunk. Stops after the value that exceeds the limit of
/// documents.
pub(super) fn split(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let (mut end, mut line) = (0, 1);
    for value in Deserializer::from_str(text).into_iter::<&RawValue>() {
        let rest = &text[end..];
        let start = end + (rest.len() - rest.trim_start().len());
        line += lines_in(&text[end..start]);
        let whole = value.as_ref().map_or(&text[start..], |value| value.get());
        chunks.push(Chunk { line, text: whole, format: Format::Json });
        if chunks.len() > MAX_DOCUMENTS {
            break;
        }
        end = start + whole.len();
        line += lines_in(whole);
    }
    chunks
}

/// The type of a value, and its items without parsing them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    api_version: Option<String>,
    kind: Option<String>,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

/// Returns the objects of a value.
pub(super) fn documents<'a>(file: &'a str, chunk: Chunk<'a>) -> Documents<'a> {
    if let Ok(Head { api_version: Some(api_version), kind: Some(kind), items: Some(items) }) =
        serde_json::from_str(chunk.text)
        && let Some(list) = ListItemType::from_list(&api_version, &kind)
    {
        let (mut seen, mut line) = (0, chunk.line);
        return Box::new(items.into_iter().map(move |item| {
            // The item is a slice of the chunk's text, so its address determines its position.
            let start = item.get().as_ptr().addr() - chunk.text.as_ptr().addr();
            line += lines_in(&chunk.text[seen..start]);
            seen = start;
            let mut value: Value =
                serde_json::from_str(item.get()).map_err(|e| chunk.error(file, line, e))?;
            list.complete(&mut value);
            document(file, chunk, line, value)
        }));
    }
    Box::new(std::iter::once_with(move || {
        let value = serde_json::from_str(chunk.text).map_err(|e| {
            if let Some((line, cause)) = chunk.common_mistake() {
                return chunk.error(file, line, format!("malformed JSON: {cause}"));
            }
            // The error message ends with a line number that counts from the start of the chunk.
            let message = e.to_string();
            let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
            chunk.error(
                file,
                chunk.line + e.line().max(1) - 1,
                format!("malformed JSON: {message}, column {}", e.column()),
            )
        })?;
        document(file, chunk, chunk.line, value)
    }))
}
