//! Label selectors in canonical form: selectors that differ only in order are equal.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::labels::{Labels, null_is_empty, null_is_empty_string};
use crate::name::Name;
use crate::problem::Problem;

/// A label selector (API reference: `LabelSelector`). All requirements must be met; without requirements it selects everything.
/// An invalid selector selects nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LabelSelector(Option<Box<[LabelSelectorRequirement]>>);

/// A requirement of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LabelSelectorRequirement {
    /// The key of the label.
    pub key: Name,
    /// The relation of the label to the values.
    pub operator: LabelSelectorOperator,
    /// The values for `In` and `NotIn`, sorted, at least one; none for the other operators.
    pub values: Box<[Name]>,
}

/// The operator of a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LabelSelectorOperator {
    /// The label exists and has one of the values.
    In,
    /// The label does not exist or has none of the values.
    NotIn,
    /// The label exists.
    Exists,
    /// The label does not exist.
    DoesNotExist,
}

impl LabelSelector {
    /// Returns the selector that selects everything.
    pub fn everything() -> Self {
        LabelSelector(Some(Box::default()))
    }

    /// Returns the selector that selects nothing.
    pub fn nothing() -> Self {
        LabelSelector(None)
    }

    /// Returns true if it selects an object with these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.as_ref().is_some_and(|requirements| requirements.iter().all(|r| r.matches(labels)))
    }

    /// Returns true if it selects everything.
    pub fn selects_all(&self) -> bool {
        self.0.as_ref().is_some_and(|requirements| requirements.is_empty())
    }

    /// Returns true if it is valid. An invalid selector selects nothing.
    pub fn is_valid(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the requirements, sorted by key.
    pub fn requirements(&self) -> &[LabelSelectorRequirement] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl Default for LabelSelector {
    fn default() -> Self {
        LabelSelector::everything()
    }
}

impl LabelSelectorRequirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.value(&self.key);
        let is_in = || value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            LabelSelectorOperator::In => is_in(),
            LabelSelectorOperator::NotIn => !is_in(),
            LabelSelectorOperator::Exists => value.is_some(),
            LabelSelectorOperator::DoesNotExist => value.is_none(),
        }
    }
}

impl LabelSelectorOperator {
    fn parse(text: &str) -> Option<LabelSelectorOperator> {
        let all = [
            LabelSelectorOperator::In,
            LabelSelectorOperator::NotIn,
            LabelSelectorOperator::Exists,
            LabelSelectorOperator::DoesNotExist,
        ];
        all.into_iter().find(|operator| operator.as_str() == text)
    }

    /// Returns its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            LabelSelectorOperator::In => "In",
            LabelSelectorOperator::NotIn => "NotIn",
            LabelSelectorOperator::Exists => "Exists",
            LabelSelectorOperator::DoesNotExist => "DoesNotExist",
        }
    }
}

/// The syntax of kubectl: `app=web,tier in (a,b),!old`.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_valid() {
            return f.write_str("<invalid>");
        }
        for (i, requirement) in self.requirements().iter().enumerate() {
            let between = if i == 0 { "" } else { "," };
            write!(f, "{between}{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for LabelSelectorRequirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let values = || self.values.iter().map(|value| value.as_str()).collect::<Vec<_>>().join(",");
        match (self.operator, &*self.values) {
            (LabelSelectorOperator::In, [value]) => write!(f, "{key}={value}"),
            (LabelSelectorOperator::NotIn, [value]) => write!(f, "{key}!={value}"),
            (LabelSelectorOperator::In, _) => write!(f, "{key} in ({})", values()),
            (LabelSelectorOperator::NotIn, _) => write!(f, "{key} notin ({})", values()),
            (LabelSelectorOperator::Exists, _) => write!(f, "{key}"),
            (LabelSelectorOperator::DoesNotExist, _) => write!(f, "!{key}"),
        }
    }
}

/// A selector, as in JSON.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawLabelSelector {
    #[serde(default, deserialize_with = "null_is_empty_string")]
    match_labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    match_expressions: Vec<RawRequirement>,
}

#[derive(Deserialize)]
struct RawRequirement {
    key: String,
    operator: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    values: Vec<String>,
}

impl RawLabelSelector {
    /// Returns the number of its labels, requirements and values.
    pub(crate) fn entries(&self) -> usize {
        let requirements = self.match_expressions.iter().map(|requirement| 1 + requirement.values.len());
        self.match_labels.len() + requirements.sum::<usize>()
    }

    /// Converts the selector. A requirement that the API server would reject is a problem and makes the whole selector invalid:
    /// without the requirement it would select more than intended.
    pub(crate) fn convert(self, path: &str, problems: &mut Vec<Problem>) -> LabelSelector {
        let labels = self.match_labels.iter().map(|(key, value)| {
            if !is_label_key(key) {
                problems.push(Problem::new(format!("{path}.matchLabels"), key, LABEL_KEY));
                return None;
            }
            let values = Box::new([Name::new(value)]);
            Some(LabelSelectorRequirement {
                key: Name::new(key),
                operator: LabelSelectorOperator::In,
                values,
            })
        });
        let mut requirements: Vec<Option<LabelSelectorRequirement>> = labels.collect();
        requirements.extend(
            self.match_expressions.iter().enumerate().map(|(i, requirement)| {
                requirement.convert(&format!("{path}.matchExpressions[{i}]"), problems)
            }),
        );
        let requirements: Option<Vec<LabelSelectorRequirement>> = requirements.into_iter().collect();
        LabelSelector(requirements.map(|mut requirements| {
            requirements.sort();
            requirements.dedup();
            requirements.into()
        }))
    }
}

impl RawRequirement {
    fn convert(&self, path: &str, problems: &mut Vec<Problem>) -> Option<LabelSelectorRequirement> {
        let mut problem = |field: &str, value: &str, expected| {
            problems.push(Problem::new(format!("{path}.{field}"), value, expected));
        };
        if !is_label_key(&self.key) {
            problem("key", &self.key, LABEL_KEY);
            return None;
        }
        let Some(operator) = LabelSelectorOperator::parse(&self.operator) else {
            problem("operator", &self.operator, "In, NotIn, Exists or DoesNotExist");
            return None;
        };
        let takes_values = matches!(operator, LabelSelectorOperator::In | LabelSelectorOperator::NotIn);
        if takes_values && self.values.is_empty() {
            problem("values", "[]", "at least one value for In and NotIn");
            return None;
        }
        if !takes_values && !self.values.is_empty() {
            problem("values", &self.values.join(","), "no values for Exists and DoesNotExist");
            return None;
        }
        let mut values: Vec<Name> = self.values.iter().map(|value| Name::new(value)).collect();
        values.sort();
        values.dedup();
        Some(LabelSelectorRequirement { key: Name::new(&self.key), operator, values: values.into() })
    }
}

const LABEL_KEY: &str = "a label's key such as app or example.com/app";

/// Returns true if a text is a label key (API machinery, `IsQualifiedName`): a name of up to 63 characters, with an optional
/// prefix of a DNS name and a slash.
fn is_label_key(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let outer = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && bytes.iter().copied().all(inner)
        && outer(bytes.first())
        && outer(bytes.last())
        && prefix.is_none_or(|prefix| !prefix.is_empty() && prefix.len() <= 253)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (LabelSelector, Vec<String>) {
        let wire: RawLabelSelector = serde_json::from_str(text).expect(text);
        let mut problems = Vec::new();
        let selector = wire.convert("s", &mut problems);
        (selector, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn selectors_match_as_the_api_specifies() {
        let labels = Labels::from(BTreeMap::from([("app".to_string(), "web".to_string())]));
        for (selector, expected, shown) in [
            (r#"{}"#, true, ""),
            (r#"{"matchLabels":null}"#, true, ""),
            (r#"{"matchLabels":{"app":"web"}}"#, true, "app=web"),
            (r#"{"matchLabels":{"app":"db"}}"#, false, "app=db"),
            (r#"{"matchLabels":{"tier":""}}"#, false, "tier="),
            (
                r#"{"matchExpressions":[{"key":"app","operator":"In","values":["web","db","web"]}]}"#,
                true,
                "app in (db,web)",
            ),
            (r#"{"matchExpressions":[{"key":"tier","operator":"NotIn","values":["x"]}]}"#, true, "tier!=x"),
            (
                r#"{"matchExpressions":[{"key":"app","operator":"NotIn","values":["web","x"]}]}"#,
                false,
                "app notin (web,x)",
            ),
            (r#"{"matchExpressions":[{"key":"app","operator":"Exists"}]}"#, true, "app"),
            (
                r#"{"matchExpressions":[{"key":"app","operator":"DoesNotExist","values":null}]}"#,
                false,
                "!app",
            ),
            (
                r#"{"matchLabels":{"app":"web"},"matchExpressions":[{"key":"a/b","operator":"Exists"}]}"#,
                false,
                "a/b,app=web",
            ),
        ] {
            let (parsed, problems) = read(selector);
            assert_eq!(problems, [""; 0], "{selector}");
            assert_eq!(parsed.matches(&labels), expected, "{selector}");
            assert_eq!(parsed.to_string(), shown, "{selector}");
        }
    }

    #[test]
    fn equivalent_selectors_are_equal() {
        let one = r#"{"matchLabels":{"app":"web","b":"c"}}"#;
        let other = r#"{"matchExpressions":[{"key":"b","operator":"In","values":["c"]},
            {"key":"app","operator":"In","values":["web","web"]}],"matchLabels":{"b":"c"}}"#;
        assert_eq!(read(one), read(other));
    }

    #[test]
    fn selectors_that_the_api_server_rejects_select_nothing() {
        for (expression, problem) in [
            (
                r#"{"key":"app","operator":"Near","values":["web"]}"#,
                r#"s.matchExpressions[0].operator: "Near""#,
            ),
            (r#"{"key":"tier","operator":"in","values":["web"]}"#, r#"s.matchExpressions[0].operator: "in""#),
            (r#"{"key":"app","operator":"In"}"#, r#"s.matchExpressions[0].values: "[]""#),
            (r#"{"key":"app","operator":"NotIn","values":[]}"#, r#"s.matchExpressions[0].values: "[]""#),
            (
                r#"{"key":"app","operator":"Exists","values":["web"]}"#,
                r#"s.matchExpressions[0].values: "web""#,
            ),
            (
                r#"{"key":"x","operator":"DoesNotExist","values":["a","b"]}"#,
                r#"s.matchExpressions[0].values: "a,b""#,
            ),
            (r#"{"key":"","operator":"DoesNotExist"}"#, r#"s.matchExpressions[0].key: """#),
            (r#"{"key":"/x","operator":"DoesNotExist"}"#, r#"s.matchExpressions[0].key: "/x""#),
            (r#"{"key":"-x","operator":"DoesNotExist"}"#, r#"s.matchExpressions[0].key: "-x""#),
        ] {
            let (selector, problems) = read(&format!(r#"{{"matchExpressions":[{expression}]}}"#));
            assert!(!selector.is_valid() && !selector.selects_all(), "{expression}");
            let labels = BTreeMap::from([("app".to_string(), "web".to_string())]);
            assert!(!selector.matches(&Labels::from(labels)), "{expression}");
            assert!(!selector.matches(&Labels::default()), "{expression}");
            assert!(problems.len() == 1 && problems[0].starts_with(problem), "{expression}: {problems:?}");
        }
    }
}
