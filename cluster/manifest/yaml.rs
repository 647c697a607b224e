//! YAML manifests: documents between `---` lines.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_saphyr::Spanned;

use super::{Chunk, Documents, Format, ListOf, ManifestError, document, lines_in};

/// Cuts a text at its `---` and `...` lines, which YAML allows nowhere else at a line's start.
pub(super) fn split(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let (mut begin, mut begin_line) = (0, 1);
    let (mut at, mut line_number) = (0, 0);
    for line in text.split_inclusive('\n') {
        line_number += 1;
        if let Some(marker) = marker(line) {
            push(&mut chunks, &text[begin..at], begin_line);
            // What stands behind `---` on its own line belongs to the document.
            begin = at + marker;
            begin_line = line_number;
        }
        at += line.len();
    }
    push(&mut chunks, &text[begin..], begin_line);
    chunks
}

/// The length of the marker with which a line begins, if it does.
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
        // JSON is nearly YAML; its own parser is many times faster, and knows the places of a list's items.
        let is_json =
            content.starts_with('{') && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
        let format = if is_json { Format::Json } else { Format::Yaml };
        chunks.push(Chunk { line, text, format });
        return;
    }
}

/// The objects of one document.
pub(super) fn documents<'a>(file: &'a str, chunk: Chunk<'a>) -> Documents<'a> {
    let mut value: Value = match from_str(chunk.text) {
        Ok(value) => value,
        Err(_) => return one(Err(malformed(file, chunk))),
    };
    read_booleans(&mut value);
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    let list = ListOf::of(text("apiVersion"), text("kind"));
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

/// The boolean fields of the kinds that are read.
const BOOLEANS: [&str; 6] = [
    "ready",
    "serving",
    "terminating",
    "hostNetwork",
    "publishNotReadyAddresses",
    "allocateLoadBalancerNodePorts",
];

/// Maps whose keys are free and whose values are text.
const TEXT_MAPS: [&str; 4] = ["labels", "annotations", "matchLabels", "selector"];

/// Makes booleans of the words that YAML 1.1 has for them, in boolean fields only: a namespace may be named `y`, and a
/// label may be `on`.
fn read_booleans(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(read_booleans),
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut().filter(|(name, _)| !TEXT_MAPS.contains(&name.as_str())) {
                let word =
                    value.as_str().filter(|_| BOOLEANS.contains(&name.as_str())).map(str::to_lowercase);
                match word.as_deref() {
                    Some("y" | "yes" | "on") => *value = true.into(),
                    Some("n" | "no" | "off") => *value = false.into(),
                    _ => read_booleans(value),
                }
            }
        }
        _ => {}
    }
}

fn one<'a>(result: Result<super::Document, ManifestError>) -> Documents<'a> {
    Box::new(std::iter::once(result))
}

/// The lines on which the items of a list begin.
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

/// What is wrong with a document, and on which line of the file.
fn malformed(file: &str, chunk: Chunk<'_>) -> ManifestError {
    if let Some((line, cause)) = chunk.usual_cause() {
        return chunk.error(file, line, format!("malformed YAML: {cause}"));
    }
    // ParsedObject again behind as many empty lines as precede it, so that the message's own line numbers fit.
    let padded = "\n".repeat(chunk.line - 1) + chunk.text;
    match from_str::<Value>(&padded) {
        Err(e) => {
            let line = e.location().map_or(chunk.line, |l| line_of(l.line()));
            let words = e.without_snippet().to_string();
            chunk.error(
                file,
                line,
                format!("malformed YAML: {}", words.lines().collect::<Vec<_>>().join(" ")),
            )
        }
        Ok(_) => chunk.error(file, chunk.line, "malformed YAML"),
    }
}

fn line_of(line: u64) -> usize {
    usize::try_from(line).unwrap_or(1)
}

/// Parses with limits that a list of 10,000 Services does not reach; manifests are the operator's own.
fn from_str<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
        },
        with_snippet: false,
        strict_booleans: true,
    };
    serde_saphyr::from_str_with_options(text, options)
}
