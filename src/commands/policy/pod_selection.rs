//! Selection of pods by namespace and labels (`--namespace`, `--selector`).

use std::collections::BTreeSet;

use portcullis_cluster::Name;
use portcullis_cluster::labels::Labels;
use portcullis_policy::compile::LocalPod;

use super::matrix::MatrixError;
use crate::commands::cluster_lookup::{ClusterLookup, listed};

/// A condition on one label, with kubectl's syntax.
#[derive(Debug, PartialEq, Eq)]
enum LabelCondition {
    Equals(String, String),
    NotEquals(String, String),
    Exists(String),
    DoesNotExist(String),
}

impl LabelCondition {
    /// Parses `KEY=VALUE`, `KEY==VALUE`, `KEY!=VALUE`, `KEY` or `!KEY`.
    fn parse(text: &str) -> Option<LabelCondition> {
        let text = text.trim();
        let key = |key: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
            let key = key.trim();
            (!key.is_empty() && key.chars().all(allowed)).then(|| key.to_owned())
        };
        if let Some((name, value)) = text.split_once("!=") {
            return Some(LabelCondition::NotEquals(key(name)?, value.trim().to_owned()));
        }
        if let Some((name, value)) = text.split_once('=') {
            let value = value.strip_prefix('=').unwrap_or(value);
            return Some(LabelCondition::Equals(key(name)?, value.trim().to_owned()));
        }
        match text.strip_prefix('!') {
            Some(name) => Some(LabelCondition::DoesNotExist(key(name)?)),
            None => Some(LabelCondition::Exists(key(text)?)),
        }
    }

    fn matches(&self, labels: &Labels) -> bool {
        match self {
            LabelCondition::Equals(key, value) => labels.get(key) == Some(&**value),
            LabelCondition::NotEquals(key, value) => labels.get(key) != Some(&**value),
            LabelCondition::Exists(key) => labels.contains(key),
            LabelCondition::DoesNotExist(key) => !labels.contains(key),
        }
    }
}

/// Returns the pods in scope of these namespaces (all, if empty) with these labels, by namespace and name.
pub(super) fn pods<'a>(
    world: &'a ClusterLookup<'_>,
    namespaces: &[String],
    selector: Option<&str>,
) -> Result<Vec<&'a LocalPod>, MatrixError> {
    let conditions: Vec<LabelCondition> = match selector {
        None => Vec::new(),
        Some(text) => text
            .split(',')
            .map(|part| LabelCondition::parse(part).ok_or_else(|| MatrixError::Selector(part.to_owned())))
            .collect::<Result<_, _>>()?,
    };
    let known: BTreeSet<&Name> = world.compiled().pods().map(|pod| &pod.key.namespace).collect();
    let wanted: Vec<Name> = namespaces.iter().map(|name| Name::new(name)).collect();
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(name)) {
        let known = listed(known.iter().map(|name| name.as_str()));
        return Err(MatrixError::Namespace { name: unknown.to_string(), known });
    }
    let is_selected = |pod: &&LocalPod| {
        let labels = world.index.pod(&pod.key).map(|pod| &pod.labels);
        (wanted.is_empty() || wanted.contains(&pod.key.namespace))
            && labels.is_some_and(|labels| conditions.iter().all(|condition| condition.matches(labels)))
    };
    let pods: Vec<&LocalPod> = world.compiled().pods().filter(is_selected).collect();
    if pods.is_empty() {
        return Err(match selector {
            Some(selector) => MatrixError::NotSelected(selector.to_owned()),
            None => MatrixError::NoPods,
        });
    }
    Ok(pods)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn label_conditions_are_parsed_and_matched() {
        let labels = Labels::from(BTreeMap::from([("app".to_owned(), "web".to_owned())]));
        for (text, expected) in [
            ("app=web", Some(true)),
            ("app==web", Some(true)),
            (" app = web ", Some(true)),
            ("app=db", Some(false)),
            ("app!=db", Some(true)),
            ("tier!=x", Some(true)),
            ("app", Some(true)),
            ("tier", Some(false)),
            ("!tier", Some(true)),
            ("!app", Some(false)),
            ("", None),
            ("=web", None),
            ("app in (web)", None),
        ] {
            let found = LabelCondition::parse(text).map(|condition| condition.matches(&labels));
            assert_eq!(found, expected, "{text}");
        }
    }
}
