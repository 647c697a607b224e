//! Labels.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::name::Name;

/// The labels of an object, sorted by key, interned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(Box<[(Name, Name)]>);

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&'static str> {
        self.0.iter().find(|(k, _)| k.as_str() == key).map(|(_, v)| v.as_str())
    }

    /// The value of a label, by its interned key.
    pub fn value(&self, key: Name) -> Option<Name> {
        self.0.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }

    /// Whether the label is there, with any value.
    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// These labels, with this value for one of them.
    pub fn with(&self, key: &'static str, value: &'static str) -> Labels {
        let pairs = self.iter().chain([(key, value)]);
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<BTreeMap<_, _>>().into()
    }

    /// All labels by key.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str)> + '_ {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(map: BTreeMap<String, String>) -> Self {
        Labels(map.iter().map(|(k, v)| (Name::new(k), Name::new(v))).collect())
    }
}

/// A map of strings, as of labels. The API server decodes `null`, as in the YAML `disktype:`, as the empty string, and a
/// map that is `null` as an empty one.
pub(crate) fn null_is_empty_string<'de, D>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let map: Option<BTreeMap<String, Option<String>>> = Option::deserialize(deserializer)?;
    let values = map.unwrap_or_default().into_iter();
    Ok(values.map(|(key, value)| (key, value.unwrap_or_default())).collect())
}

/// The API takes `null` for an empty list or map.
pub(crate) fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
