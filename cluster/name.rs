//! Interned names, and namespaced names of objects.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock, RwLock};

/// An interned name of a node, zone, namespace, port or label.
///
/// Takes four bytes instead of a string in each of a million endpoints. Interned strings are never freed, so only names with
/// few distinct values in a cluster are interned; names of pods and Services are not.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name(NonZeroU32);

#[derive(Default)]
struct Table {
    numbers: HashMap<&'static str, NonZeroU32>,
    strings: Vec<&'static str>,
}

static TABLE: LazyLock<RwLock<Table>> = LazyLock::new(RwLock::default);

impl Name {
    /// Returns the `Name` of a string, and interns it if necessary.
    pub fn new(text: &str) -> Name {
        if let Some(&number) = TABLE.read().expect("no panic while the table is held").numbers.get(text) {
            return Name(number);
        }
        let mut table = TABLE.write().expect("no panic while the table is held");
        if let Some(&number) = table.numbers.get(text) {
            return Name(number);
        }
        let text: &'static str = Box::leak(text.into());
        table.strings.push(text);
        let number = u32::try_from(table.strings.len()).ok().and_then(NonZeroU32::new);
        let number = number.expect("fewer than 2^32 distinct names");
        table.numbers.insert(text, number);
        Name(number)
    }

    /// Returns the string.
    pub fn as_str(self) -> &'static str {
        TABLE.read().expect("no panic while the table is held").strings[self.0.get() as usize - 1]
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        if self == other { std::cmp::Ordering::Equal } else { self.as_str().cmp(other.as_str()) }
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The namespace and name of an object. Cluster-scoped objects have the empty namespace.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedName {
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: Name,
    /// The object's name.
    pub name: Arc<str>,
}

impl NamespacedName {
    /// Returns the name from a namespace and a name.
    pub fn new(namespace: &str, name: &str) -> Self {
        NamespacedName { namespace: Name::new(namespace), name: name.into() }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

impl fmt::Debug for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_have_one_name_and_names_sort_as_strings() {
        assert_eq!(Name::new("zone-a"), Name::new("zone-a"));
        assert_ne!(Name::new("zone-a"), Name::new("zone-b"));
        let late = Name::new("aaa-interned-late");
        assert!(late < Name::new("zone-a"));
        assert_eq!(std::mem::size_of::<Option<Name>>(), 4);
    }
}
