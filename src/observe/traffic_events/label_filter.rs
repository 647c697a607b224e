//! Conditions on the labels of pods: `app=web,tier!=test`, as `kubectl -l` has them.

/// Conditions on labels, of which all must be met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LabelFilter(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    value: String,
    /// The label must have the value; if not, it must not have it.
    is_equal: bool,
}

impl LabelFilter {
    /// Returns true if a text has the form of conditions: no name, address or CIDR has these characters.
    pub(super) fn is_meant(text: &str) -> bool {
        text.contains('=')
    }

    /// Parses conditions: `KEY=VALUE`, `KEY==VALUE` and `KEY!=VALUE`, divided by commas.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let requirements = text.split(',').map(|part| {
            let (key, value) = part.split_once('=')?;
            let (key, is_equal) = match key.strip_suffix('!') {
                Some(key) => (key, false),
                None => (key, true),
            };
            let value = value.strip_prefix('=').filter(|_| is_equal).unwrap_or(value);
            let is_label = |text: &str, others: &[char]| {
                text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(&c))
            };
            let is_valid =
                !key.is_empty() && is_label(key, &['-', '_', '.', '/']) && is_label(value, &['-', '_', '.']);
            is_valid.then(|| Requirement { key: key.to_owned(), value: value.to_owned(), is_equal })
        });
        requirements.collect::<Option<Vec<_>>>().map(LabelFilter)
    }

    /// Returns true if labels meet all conditions. `label` returns the value of a label. One that is missing differs from every
    /// value.
    pub(super) fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0
            .iter()
            .all(|requirement| (label(&requirement.key) == Some(&*requirement.value)) == requirement.is_equal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_those_of_kubectl() {
        let label = |key: &str| match key {
            "app" => Some("web"),
            "app.kubernetes.io/name" => Some("shop"),
            _ => None,
        };
        for (text, expected) in [
            ("app=web", Some(true)),
            ("app==web", Some(true)),
            ("app=db", Some(false)),
            ("app!=db", Some(true)),
            ("tier!=test", Some(true)),
            ("tier=", Some(false)),
            ("app=web,app.kubernetes.io/name=shop", Some(true)),
            ("app=web,tier=front", Some(false)),
            ("=web", None),
            ("app=a b", None),
            ("app=web,", None),
            ("app!==web", None),
        ] {
            assert_eq!(LabelFilter::parse(text).map(|filter| filter.matches(label)), expected, "{text}");
        }
    }
}
