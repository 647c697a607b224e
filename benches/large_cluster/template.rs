//! JSON text with fields to fill in, so that the server writes objects without building them.

use std::io::Write;

use serde_json::Value;

/// A field of an object's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Name,
    Namespace,
    App,
    Hash,
    Uid,
    OwnerUid,
    Revision,
    Node,
    NodeIp,
    Ip,
    Number,
    Team,
    Version,
    /// The endpoints of a slice.
    Endpoints,
}

const FIELDS: [(&str, Field); 14] = [
    ("name", Field::Name),
    ("namespace", Field::Namespace),
    ("app", Field::App),
    ("hash", Field::Hash),
    ("uid", Field::Uid),
    ("owner", Field::OwnerUid),
    ("revision", Field::Revision),
    ("node", Field::Node),
    ("nodeip", Field::NodeIp),
    ("ip", Field::Ip),
    ("number", Field::Number),
    ("team", Field::Team),
    ("version", Field::Version),
    ("endpoints", Field::Endpoints),
];

/// Text around fields: `@@name@@` in a string of a JSON value. A string that is only `@@endpoints@@` is replaced with its quotes.
pub(crate) struct Template {
    parts: Vec<(String, Field)>,
    rest: String,
}

impl Template {
    pub(crate) fn new(value: &Value) -> Self {
        let text = value.to_string().replace("\"@@endpoints@@\"", "@@endpoints@@");
        let mut pieces = text.split("@@").map(str::to_owned).collect::<Vec<_>>().into_iter();
        let mut parts = Vec::new();
        loop {
            let before = pieces.next().expect("a text follows each field");
            let Some(name) = pieces.next() else { return Template { parts, rest: before } };
            let field = FIELDS.iter().find(|(known, _)| *known == name);
            parts.push((before, field.unwrap_or_else(|| panic!("unknown field {name}")).1));
        }
    }

    /// Appends the text; `fill` appends the text of a field.
    pub(crate) fn write(&self, out: &mut Vec<u8>, mut fill: impl FnMut(Field, &mut Vec<u8>)) {
        for (before, field) in &self.parts {
            out.extend_from_slice(before.as_bytes());
            fill(*field, out);
        }
        out.extend_from_slice(self.rest.as_bytes());
    }
}

/// Appends formatted text.
pub(crate) fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("memory can be written");
}
