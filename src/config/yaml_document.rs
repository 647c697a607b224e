//! YAML parser (and so JSON parser) into a [`Node`] tree.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};

use super::document::{Entry, Malformed, Node, Value};
use crate::bounded_file::MAX_CONFIGURATION;

/// The most values of a configuration in YAML, aliases included. A configuration has about 100 settings.
const MAX_VALUES: usize = 20_000;

/// The most text of a configuration in YAML, in bytes, aliases included: twice as much as its file may have.
const MAX_TEXT: usize = 2 * MAX_CONFIGURATION;

/// Returns the options of the parser for configuration files and host files.
pub(crate) fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 3 * MAX_VALUES,
            max_nodes: MAX_VALUES,
            max_total_scalar_bytes: MAX_TEXT,
            max_recorded_anchor_events: 3 * MAX_VALUES,
            max_recorded_anchor_bytes: MAX_TEXT,
        },
    }
}

/// Parses one document.
pub(super) fn parse(text: &str) -> Result<Node, Malformed> {
    // Duplicates are kept, so that they are reported together with all other errors.
    let mut options = yaml_options();
    options.duplicate_keys = DuplicateKeyPolicy::PassThrough;
    options.with_snippet = false;
    serde_saphyr::from_str_with_options::<Spanned<Tree>>(text, options)
        .map(Node::from)
        .map_err(|error| Malformed { line: error.location().and_then(line_of), message: message_of(&error) })
}

/// Returns the message for an error that exceeds a limit of [`yaml_options`]; `None` for another error.
pub(crate) fn limit_message(error: &serde_saphyr::Error) -> Option<String> {
    use serde_saphyr::Error;
    match error {
        Error::AliasError { error, .. } | Error::WithSnippet { error, .. } => limit_message(error),
        Error::Budget {
            breach: BudgetBreach::ScalarBytes { .. } | BudgetBreach::RecordedAnchorBytes { .. },
            ..
        } => Some(format!("too much text, expected at most {} MiB, aliases included", MAX_TEXT >> 20)),
        Error::Budget {
            breach:
                BudgetBreach::Nodes { .. }
                | BudgetBreach::Events { .. }
                | BudgetBreach::RecordedAnchorEvents { .. }
                | BudgetBreach::AliasAnchorRatio { .. },
            ..
        }
        | Error::AliasReplayLimitExceeded { .. } => {
            Some(format!("too many values, expected at most {MAX_VALUES}, aliases included"))
        }
        _ => None,
    }
}

/// Returns the parser's message, except where it addresses programmers.
fn message_of(error: &serde_saphyr::Error) -> String {
    if let Some(message) = limit_message(error) {
        return message;
    }
    match error.without_snippet() {
        serde_saphyr::Error::MultipleDocuments { .. } => {
            "more than one document; expected a single one".to_owned()
        }
        other => other.to_string(),
    }
}

fn line_of(location: Location) -> Option<usize> {
    usize::try_from(location.line()).ok().filter(|line| *line > 0)
}

/// Result of `deserialize_any`.
enum Tree {
    Scalar(Value),
    List(Vec<Spanned<Tree>>),
    Mapping(Vec<(Spanned<String>, Spanned<Tree>)>),
}

impl From<Spanned<Tree>> for Node {
    fn from(spanned: Spanned<Tree>) -> Self {
        let value = match spanned.value {
            Tree::Scalar(value) => value,
            Tree::List(items) => Value::List(items.into_iter().map(Node::from).collect()),
            Tree::Mapping(entries) => Value::Mapping(entries.into_iter().map(entry).collect()),
        };
        Self { line: line_of(spanned.referenced).unwrap_or(0), value }
    }
}

fn entry((key, node): (Spanned<String>, Spanned<Tree>)) -> Entry {
    Entry { line: line_of(key.referenced).unwrap_or(0), key: key.value, node: node.into() }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Integer(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(i64::try_from(value).map_or(Value::Float(value as f64), Value::Integer)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Mapping(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of(text: &str) -> Value {
        let Value::Mapping(entries) = parse(text).expect("well-formed").value else { panic!("a mapping") };
        entries[0].node.value.clone()
    }

    #[test]
    fn scalars_keep_their_type() {
        let rows = [
            ("a: 1", Value::Integer(1)),
            ("a: -999", Value::Integer(-999)),
            ("a: 0.5", Value::Float(0.5)),
            ("a: true", Value::Bool(true)),
            ("a: 'true'", Value::Text("true".into())),
            ("a: '14'", Value::Text("14".into())),
            ("a:", Value::Null),
            ("a: null", Value::Null),
            ("a: ~", Value::Null),
            ("a: ''", Value::Text(String::new())),
            ("a: 1h30m", Value::Text("1h30m".into())),
            ("a: 0.0.0.0:10256", Value::Text("0.0.0.0:10256".into())),
            // YAML 1.1, as in kube-proxy's parser.
            ("a: yes", Value::Bool(true)),
            ("a: 'yes'", Value::Text("yes".into())),
            ("{\"a\": [1]}", Value::List(vec![Node { line: 1, value: Value::Integer(1) }])),
        ];
        for (text, expected) in rows {
            assert_eq!(value_of(text), expected, "{text}");
        }
    }

    #[test]
    fn lines_and_duplicates_are_kept() {
        let root = parse("---\na: 1\nb:\n  c: 2\na: 3\n").expect("well-formed");
        let Value::Mapping(entries) = root.value else { panic!("a mapping") };
        let seen: Vec<_> = entries.iter().map(|entry| (entry.key.as_str(), entry.line)).collect();
        assert_eq!(seen, [("a", 2), ("b", 3), ("a", 5)]);
    }

    #[test]
    fn malformed_text_has_a_line() {
        for (text, line) in [("a: 1\nb: ]\n", 2), ("a:\n\tb: 1\n", 2), ("a: 1\n---\nb: 1\n", 3)] {
            assert_eq!(parse(text).expect_err(text).line, Some(line), "{text:?}");
        }
    }

    #[test]
    fn aliases_and_values_are_limited() {
        let long = "x".repeat(500_000);
        let rows = [
            (format!("a: &a {long}\nb: [*a, *a]\n"), None),
            (
                format!("a: &a {long}\nb: [*a, *a, *a, *a, *a]\n"),
                Some("too much text, expected at most 2 MiB"),
            ),
            (format!("a: [{}]\n", "1, ".repeat(30_000)), Some("too many values, expected at most 20000")),
            (
                "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n\
                 c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]\n\
                 e: [*d, *d, *d, *d, *d, *d, *d, *d, *d]\n"
                    .to_owned(),
                Some("too many values"),
            ),
        ];
        for (text, expected) in rows {
            let message = parse(&text).err().map(|malformed| malformed.message).unwrap_or_default();
            assert_eq!(message.is_empty(), expected.is_none(), "{message}");
            assert!(message.contains(expected.unwrap_or_default()), "{message}");
        }
    }
}
