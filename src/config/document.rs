//! A configuration file as a tree with line numbers, whichever language it was written in.

use std::fmt;

/// A value and the line that it starts on, counted from 1 (0 where the parser could not tell).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

/// What YAML, JSON and TOML have in common. Mappings keep the file's order and their duplicates.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// One `key: value`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) node: Node,
}

impl fmt::Display for Value {
    /// For messages: scalars as they are, the others by their kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::List(_) => f.write_str("a list"),
            Self::Mapping(_) => f.write_str("a mapping"),
        }
    }
}

/// Why a file is not even a tree.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Malformed {
    /// Counted from 1, where the parser knows it.
    pub(super) line: Option<usize>,
    /// The parser's words.
    pub(super) message: String,
}
