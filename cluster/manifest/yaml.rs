//! YAML manifests: documents separated by `---` lines.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_saphyr::Spanned;

use super::{Chunk, Documents, Format, ListItemType, MAX_DOCUMENTS, ManifestError, document, lines_in};

/// The most values that aliases may add to a document.
pub const MAX_ALIAS_VALUES: usize = 10_000;

/// The most text that aliases may add to a document, in bytes.
pub const MAX_ALIAS_BYTES: usize = 1 << 20;

/// Splits a text at `---` and `...` lines, which YAML allows at the start of a line only as markers. Stops
/// after the document that exceeds the limit of documents.
pub(super) fn split(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let (mut begin, mut begin_line) = (0, 1);
    let (mut at, mut line_number) = (0, 0);
    for line in text.split_inclusive('\n') {
        line_number += 1;
        if let Some(marker) = marker(line) {
            push(&mut chunks, &text[begin..at], begin_line);
            if chunks.len() > MAX_DOCUMENTS {
                return chunks;
            }
            // Text after `---` on the same line belongs to the document.
            begin = at + marker;
            begin_line = line_number;
        }
        at += line.len();
    }
    push(&mut chunks, &text[begin..], begin_line);
    chunks
}

/// Returns the length of the marker at the start of a line.
fn marker(line: &str) -> Option<usize> {
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."))?;
    (rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])).then_some(3)
}

fn push<'a>(chunks: &mut Vec<Chunk<'a>>, text: &'a str, line: usize) {
    let mut skipped = 0;
    for one in text.split_inclusive('\n') {
        let content = one.trim();
        if content.is_empty() || content.starts_with(['#', '%']) {
            skipped += one.len();
            continue;
        }
        let (text, line) = (&text[skipped..], line + lines_in(&text[..skipped]));
        // The JSON parser is many times faster, and returns the positions of a list's items.
        let is_json =
            content.starts_with('{') && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
        let format = if is_json { Format::Json } else { Format::Yaml };
        chunks.push(Chunk { line, text, format });
        return;
    }
}

/// Returns the objects of a document.
pub(super) fn documents<'a>(file: &'a str, chunk: Chunk<'a>) -> Documents<'a> {
    let mut value: Value = match from_str(chunk.text) {
        Ok(value) => value,
        Err(_) => return one(Err(malformed(file, chunk))),
    };
    convert_booleans(&mut value);
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    let list = ListItemType::from_list(text("apiVersion"), text("kind"));
    let (Some(list), Some(Value::Array(items))) = (list, value.get_mut("items")) else {
        return one(document(file, chunk, chunk.line, value));
    };
    let items = std::mem::take(items);
    let lines = item_lines(chunk);
    Box::new(items.into_iter().enumerate().map(move |(i, mut value)| {
        list.complete(&mut value);
        document(file, chunk, lines.get(i).copied().unwrap_or(chunk.line), value)
    }))
}

/// The boolean fields of the kinds in use.
const BOOLEANS: [&str; 6] = [
    "ready",
    "serving",
    "terminating",
    "hostNetwork",
    "publishNotReadyAddresses",
    "allocateLoadBalancerNodePorts",
];

/// Maps with arbitrary keys and string values.
const TEXT_MAPS: [&str; 4] = ["labels", "annotations", "matchLabels", "selector"];

/// Converts the boolean words of YAML 1.1, in boolean fields only: a namespace may be named `y`, and a label may be `on`.
fn convert_booleans(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(convert_booleans),
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut().filter(|(name, _)| !TEXT_MAPS.contains(&name.as_str())) {
                let word =
                    value.as_str().filter(|_| BOOLEANS.contains(&name.as_str())).map(str::to_lowercase);
                match word.as_deref() {
                    Some("y" | "yes" | "on") => *value = true.into(),
                    Some("n" | "no" | "off") => *value = false.into(),
                    _ => convert_booleans(value),
                }
            }
        }
        _ => {}
    }
}

fn one<'a>(result: Result<super::Document, ManifestError>) -> Documents<'a> {
    Box::new(std::iter::once(result))
}

/// Returns the first line of each item of a list.
fn item_lines(chunk: Chunk<'_>) -> Vec<usize> {
    #[derive(Deserialize)]
    struct Items {
        items: Vec<Spanned<IgnoredAny>>,
    }
    let lines = |list: Items| {
        list.items.iter().map(|item| chunk.line - 1 + line_of(item.referenced.line())).collect()
    };
    from_str::<Items>(chunk.text).map(lines).unwrap_or_default()
}

/// Returns the error of a malformed document.
fn malformed(file: &str, chunk: Chunk<'_>) -> ManifestError {
    if let Some((line, cause)) = chunk.common_mistake() {
        return chunk.error(file, line, format!("malformed YAML: {cause}"));
    }
    match from_str::<Value>(chunk.text) {
        Err(e) => {
            let before = chunk.line - 1;
            let line = e.location().map_or(chunk.line, |l| before + line_of(l.line()));
            chunk.error(file, line, format!("malformed YAML: {}", message_of(&e, before)))
        }
        Ok(_) => chunk.error(file, chunk.line, "malformed YAML"),
    }
}

/// Returns the parser's message in one line, with line numbers of the file: `before` is the number of lines before the document.
fn message_of(error: &serde_saphyr::Error, before: usize) -> String {
    use serde_saphyr::Error;
    use serde_saphyr::budget::BudgetBreach;
    let mut cause = error;
    while let Error::AliasError { error, .. } | Error::WithSnippet { error, .. } = cause {
        cause = error;
    }
    match cause {
        Error::Budget {
            breach:
                BudgetBreach::Events { .. }
                | BudgetBreach::Nodes { .. }
                | BudgetBreach::ScalarBytes { .. }
                | BudgetBreach::RecordedAnchorEvents { .. }
                | BudgetBreach::RecordedAnchorBytes { .. },
            ..
        }
        | Error::AliasReplayLimitExceeded { .. } => format!(
            "its aliases expand to too much, expected at most {MAX_ALIAS_VALUES} values and {} MiB of text",
            MAX_ALIAS_BYTES >> 20
        ),
        _ => shift_lines(&error.without_snippet().to_string().lines().collect::<Vec<_>>().join(" "), before),
    }
}

/// Adds a number to each line number of a message, as in `at line 3, column 5`.
fn shift_lines(message: &str, before: usize) -> String {
    const LINE: &str = "line ";
    let mut shifted = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(at) = rest.find(LINE) {
        let (text, number) = rest.split_at(at + LINE.len());
        shifted.push_str(text);
        let digits = number.bytes().take_while(u8::is_ascii_digit).count();
        let (line, after) = number.split_at(digits);
        match line.parse::<usize>() {
            Ok(line) => shifted.push_str(&(line + before).to_string()),
            Err(_) => shifted.push_str(line),
        }
        rest = after;
    }
    shifted + rest
}

fn line_of(line: u64) -> usize {
    usize::try_from(line).unwrap_or(1)
}

/// Parses YAML. The size of a document is limited by that of its file, and what aliases add to it by [`MAX_ALIAS_VALUES`] and
/// [`MAX_ALIAS_BYTES`]: the default limits of the parser are lower than a list of 10,000 Services, and higher than what is safe.
fn from_str<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_saphyr::Error> {
    // Without aliases, each value takes a byte of the text at least, and has two events (its begin and end) at most.
    let values = text.len() + MAX_ALIAS_VALUES;
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 2 * values + 16,
            max_nodes: values,
            max_total_scalar_bytes: text.len() + MAX_ALIAS_BYTES,
            max_recorded_anchor_events: 2 * values + 16,
            max_recorded_anchor_bytes: text.len() + MAX_ALIAS_BYTES,
            // The limits above are exact.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 2 * MAX_ALIAS_VALUES,
        },
        with_snippet: false,
        strict_booleans: true,
    };
    serde_saphyr::from_str_with_options(text, options)
}
