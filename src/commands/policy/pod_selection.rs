//! Which pods are asked about.

use std::collections::BTreeSet;

use portcullis_cluster::Name;
use portcullis_cluster::labels::Labels;
use portcullis_policy::compile::LocalPod;

use super::matrix::MatrixError;
use crate::commands::world::{World, listed};

/// What one label must be, as kubectl takes it.
#[derive(Debug, PartialEq, Eq)]
enum Condition {
    Is(String, String),
    IsNot(String, String),
    Exists(String),
    IsAbsent(String),
}

impl Condition {
    /// Reads `KEY=VALUE`, `KEY==VALUE`, `KEY!=VALUE`, `KEY` or `!KEY`.
    fn read(text: &str) -> Option<Condition> {
        let text = text.trim();
        let key = |key: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
            let key = key.trim();
            (!key.is_empty() && key.chars().all(allowed)).then(|| key.to_owned())
        };
        if let Some((name, value)) = text.split_once("!=") {
            return Some(Condition::IsNot(key(name)?, value.trim().to_owned()));
        }
        if let Some((name, value)) = text.split_once('=') {
            let value = value.strip_prefix('=').unwrap_or(value);
            return Some(Condition::Is(key(name)?, value.trim().to_owned()));
        }
        match text.strip_prefix('!') {
            Some(name) => Some(Condition::IsAbsent(key(name)?)),
            None => Some(Condition::Exists(key(text)?)),
        }
    }

    fn holds(&self, labels: &Labels) -> bool {
        match self {
            Condition::Is(key, value) => labels.get(key) == Some(value),
            Condition::IsNot(key, value) => labels.get(key) != Some(value),
            Condition::Exists(key) => labels.contains(key),
            Condition::IsAbsent(key) => !labels.contains(key),
        }
    }
}

/// The judged pods of these namespaces (none: of all) with these labels, by namespace and name.
pub(super) fn pods<'a>(
    world: &'a World<'_>,
    namespaces: &[String],
    selector: Option<&str>,
) -> Result<Vec<&'a LocalPod>, MatrixError> {
    let conditions: Vec<Condition> = match selector {
        None => Vec::new(),
        Some(text) => text
            .split(',')
            .map(|part| Condition::read(part).ok_or_else(|| MatrixError::Selector(part.to_owned())))
            .collect::<Result<_, _>>()?,
    };
    let known: BTreeSet<Name> = world.compiled().pods().map(|pod| pod.key.namespace).collect();
    let wanted: Vec<Name> = namespaces.iter().map(|name| Name::new(name)).collect();
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(name)) {
        let known = listed(known.iter().map(|name| name.as_str()));
        return Err(MatrixError::Namespace { name: unknown.to_string(), known });
    }
    let fits = |pod: &&LocalPod| {
        let labels = world.index.pod(&pod.key).map(|pod| &pod.labels);
        (wanted.is_empty() || wanted.contains(&pod.key.namespace))
            && labels.is_some_and(|labels| conditions.iter().all(|condition| condition.holds(labels)))
    };
    let pods: Vec<&LocalPod> = world.compiled().pods().filter(fits).collect();
    if pods.is_empty() {
        return Err(MatrixError::NoPods);
    }
    Ok(pods)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn conditions_are_read_and_hold() {
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
            assert_eq!(Condition::read(text).map(|condition| condition.holds(&labels)), expected, "{text}");
        }
    }
}
