//! Portcullis' TOML configuration file: parser into a [`Node`] tree, and writer.
//!
//! Keys are in kebab case, like the flags; `config.example.toml` shows all of them.

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table};

use super::document::{Entry, Malformed, Node, Value};
use super::error::MAX_SHOWN;
use super::field_ref::FieldRef;
use super::settings::Settings;

/// First line of a file written by [`write()`], by which the format is detected regardless of the file name.
pub(super) const MARKER: &str = "# Portcullis configuration in TOML";

/// Returns the reason why a field of earlier releases has no effect.
pub(super) fn removed_field(field: &str) -> Option<&'static str> {
    (field == "config-sync-period").then_some(super::setting_table::NO_REFRESH)
}

/// Returns a file with the settings that differ from their defaults.
pub(super) fn write(settings: &Settings) -> String {
    let (mut given, mut defaults) = (settings.clone(), Settings::default());
    let mut root = Table::new();
    for (path, field_ref) in super::setting_table::settings().filter_map(|s| Some((s.toml?, s.field_ref))) {
        if field_ref(&mut given).to_string() == field_ref(&mut defaults).to_string() {
            continue;
        }
        let (sections, key) = path.rsplit_once('.').map_or(("", path), |(sections, key)| (sections, key));
        let mut table = &mut root;
        for section in sections.split('.').filter(|section| !section.is_empty()) {
            let entry = table.entry(section).or_insert_with(|| toml::Value::Table(Table::new()));
            table = entry.as_table_mut().expect("no setting has the name of a section");
        }
        table.insert(key.to_owned(), value(field_ref(&mut given)));
    }
    format!("{MARKER}\n{root}")
}

fn value(field_ref: FieldRef<'_>) -> toml::Value {
    let texts =
        |values: &[String]| toml::Value::Array(values.iter().cloned().map(toml::Value::String).collect());
    match field_ref {
        FieldRef::Bool(value) => toml::Value::Boolean(*value),
        FieldRef::Integer(value) => toml::Value::Integer(i64::from(*value)),
        FieldRef::Float(value) => toml::Value::Float(f64::from(*value)),
        FieldRef::List(values) | FieldRef::Joined(values) => texts(values),
        FieldRef::Gates(gates) => {
            let gates = gates.iter().map(|(name, on)| (name.clone(), toml::Value::Boolean(*on)));
            toml::Value::Table(gates.collect())
        }
        FieldRef::Text(_)
        | FieldRef::Quantity(_)
        | FieldRef::Duration(_)
        | FieldRef::DurationOrNanoseconds(_)
        | FieldRef::VModules(_) => toml::Value::String(field_ref.to_string()),
    }
}

/// Parses a file. The parser continues after an error, so it may return several.
pub(super) fn parse(text: &str) -> Result<Node, Vec<Malformed>> {
    let lines = LineStarts::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let (line, entries) = (lines.line_at(table.span().start), mapping(table.get_ref(), &lines));
        return Ok(Node { line, value: Value::Mapping(entries) });
    }
    let malformed = errors.iter().take(MAX_SHOWN + 1).map(|error| Malformed {
        line: error.span().map(|span| lines.line_at(span.start)),
        message: error.message().to_owned(),
    });
    Err(malformed.collect())
}

fn mapping(table: &DeTable<'_>, lines: &LineStarts) -> Vec<Entry> {
    let entries = table.iter().map(|(key, value)| Entry {
        line: lines.line_at(key.span().start),
        key: key.get_ref().to_string(),
        node: node(value, lines),
    });
    let mut entries: Vec<Entry> = entries.collect();
    // The parser sorts by key; messages are in the order of the file.
    entries.sort_by_key(|entry| entry.line);
    entries
}

fn node(value: &Spanned<DeValue<'_>>, lines: &LineStarts) -> Node {
    let plain = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::Text(number.to_string()), Value::Integer),
        DeValue::Float(number) => {
            number.as_str().parse().map_or(Value::Text(number.to_string()), Value::Float)
        }
        DeValue::Datetime(time) => Value::Text(time.to_string()),
        DeValue::Array(items) => Value::List(items.iter().map(|item| node(item, lines)).collect()),
        DeValue::Table(table) => Value::Mapping(mapping(table, lines)),
    };
    Node { line: lines.line_at(value.span().start), value: plain }
}

/// Byte offsets of the line starts of a text.
struct LineStarts(Vec<usize>);

impl LineStarts {
    fn new(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// Returns the line of a byte offset, counted from 1.
    fn line_at(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_values_and_lines() {
        let root = parse("mode = \"ipvs\"\n\n[ipvs]\nstrict-arp = true\nexclude-cidrs = [\"10.0.0.0/8\"]\n[api-server]\nqps = 2.5\nburst = 0x10\n")
            .expect("well-formed");
        let Value::Mapping(entries) = &root.value else { panic!("a mapping") };
        let find = |key: &str| entries.iter().find(|entry| entry.key == key).expect("the key");
        assert_eq!(find("mode").node, Node { line: 1, value: Value::Text("ipvs".into()) });
        let Value::Mapping(ipvs) = &find("ipvs").node.value else { panic!("a mapping") };
        let strict = ipvs.iter().find(|entry| entry.key == "strict-arp").expect("the key");
        assert_eq!((strict.line, &strict.node.value), (4, &Value::Bool(true)));
        let Value::Mapping(server) = &find("api-server").node.value else { panic!("a mapping") };
        let values: Vec<_> = server.iter().map(|entry| (entry.key.as_str(), &entry.node.value)).collect();
        assert!(
            values.contains(&("qps", &Value::Float(2.5))) && values.contains(&("burst", &Value::Integer(16)))
        );
    }

    #[test]
    fn every_mistake_is_reported_with_its_line() {
        let malformed = parse("a = 1\na = 2\nb = \n[c\n").expect_err("three mistakes");
        let lines: Vec<_> = malformed.iter().filter_map(|mistake| mistake.line).collect();
        assert!(lines.contains(&2) && lines.contains(&3) && lines.contains(&4), "{malformed:?}");
    }
}
