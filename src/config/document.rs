//! Document tree of a configuration file, with line numbers, common to YAML and TOML.

use std::fmt;

/// A value and the line on which it starts, counted from 1 (0 if unknown).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

/// A value of YAML, JSON or TOML. Mappings keep the order of the file and duplicate keys.
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

/// A `key: value` pair of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) node: Node,
}

impl fmt::Display for Value {
    /// Formats the value for messages: scalars as written, lists and mappings abbreviated.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::List(_) => f.write_str("[...]"),
            Self::Mapping(_) => f.write_str("{...}"),
        }
    }
}

/// A syntax error.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Malformed {
    /// Line, counted from 1, if the parser knows it.
    pub(super) line: Option<usize>,
    /// Message of the parser.
    pub(super) message: String,
}
