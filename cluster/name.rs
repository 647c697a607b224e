//! Interned names, and namespaced names of objects.

use std::fmt;
use std::sync::{Arc, LazyLock};

use crate::interned::{InternTable, Internable, Interned};

/// An interned name of a node, zone, namespace, port or label.
///
/// Takes 8 bytes instead of a string in each object, and comparing two names for equality is comparing two addresses. The string
/// is freed with the last `Name` of it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Interned<str>);

impl Internable for str {
    fn table() -> &'static InternTable<str> {
        static NAMES: LazyLock<InternTable<str>> = LazyLock::new(InternTable::new);
        &NAMES
    }
}

impl Name {
    /// Returns the `Name` of a string, and interns it if necessary.
    pub fn new(text: &str) -> Name {
        Name(str::table().intern(text))
    }

    /// Returns the string.
    pub fn as_str(&self) -> &str {
        &self.0
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
        assert_eq!(std::mem::size_of::<Option<Name>>(), 8);
    }
}
