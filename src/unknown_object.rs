//! Error messages for objects that do not exist, with similar names.

use std::collections::BTreeSet;

use portcullis_cluster::NamespacedName;

use crate::config::nearest;
use crate::truncated_list::listed;

/// Returns the error message for an object that does not exist, with a similar or existing name of the `others`.
pub(crate) fn message(kind: &str, name: &NamespacedName, others: &[&NamespacedName]) -> String {
    let mut message = format!("there is no {kind} {name}");
    // Names with the same first letter come first, as typing errors are rarely in the first letter.
    let mut likely: Vec<&&NamespacedName> = others.iter().collect();
    likely.sort_by_key(|o| {
        (o.namespace != name.namespace, o.name.chars().next() != name.name.chars().next(), *o)
    });
    let all: Vec<String> = likely.iter().map(ToString::to_string).collect();
    let mut here: Vec<&str> =
        others.iter().filter(|other| other.namespace == name.namespace).map(|o| &*o.name).collect();
    here.sort_unstable();
    here.dedup();
    let elsewhere = others.iter().filter(|other| other.name == name.name).min();
    // A similar name in the same namespace takes precedence over one in another namespace.
    let near = nearest(&name.name, here.iter().copied()).map(|near| format!("{}/{near}", name.namespace));
    let near = near.or_else(|| elsewhere.map(ToString::to_string));
    let near = near.or_else(|| nearest(&name.to_string(), all.iter().map(String::as_str)).map(str::to_owned));
    match near {
        Some(near) => message.push_str(&format!("; did you mean {near}?")),
        None if others.is_empty() => message.push_str("; there is none in any namespace"),
        None if here.is_empty() => {
            let namespaces: BTreeSet<&str> = others.iter().map(|o| o.namespace.as_str()).collect();
            message.push_str(&format!(
                "; namespace {} has none (namespaces that have some: {})",
                name.namespace,
                listed(namespaces)
            ));
        }
        None => message.push_str(&format!("; namespace {} has {}", name.namespace, listed(here))),
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn existing_names_are_suggested() {
        let name = |text: &str| {
            let (namespace, name) = text.split_once('/').expect("NAMESPACE/NAME");
            NamespacedName::new(namespace, name)
        };
        let rows: [(&[&str], &str); 4] = [
            (&[], "there is none in any namespace"),
            (&["shop/wep"], "did you mean shop/wep?"),
            (&["shop/basket"], "namespace shop has basket"),
            (&["blog/basket"], "namespace shop has none (namespaces that have some: blog)"),
        ];
        for (others, expected) in rows {
            let others: Vec<NamespacedName> = others.iter().map(|other| name(other)).collect();
            let message = message("pod", &name("shop/web"), &others.iter().collect::<Vec<_>>());
            assert_eq!(message, format!("there is no pod shop/web; {expected}"));
        }
    }
}
