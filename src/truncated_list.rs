//! Lists in a line of text, truncated to the first items.

use std::fmt::Display;

/// Formats the first `most` names and the number of the rest: `a, b and 3 more`. Empty for an empty list.
pub(crate) fn names<T: Display>(items: impl IntoIterator<Item = T>, most: usize) -> String {
    truncated(items, most, ", ", " and")
}

/// Formats the first `most` clauses and the number of the rest: `a; b; and 3 more`. Empty for an empty list.
pub(crate) fn clauses<T: Display>(items: impl IntoIterator<Item = T>, most: usize) -> String {
    truncated(items, most, "; ", "; and")
}

/// The number of names that [`listed`] shows.
const SHOWN: usize = 8;

/// Joins names for an explanation; of many, only the first ones and the number of the rest: `none` for an empty list.
pub(crate) fn listed<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let listed = names(items, SHOWN);
    if listed.is_empty() { "none".to_owned() } else { listed }
}

fn truncated<T: Display>(
    items: impl IntoIterator<Item = T>,
    most: usize,
    separator: &str,
    before_rest: &str,
) -> String {
    let mut items = items.into_iter();
    let first: Vec<String> = items.by_ref().take(most).map(|item| item.to_string()).collect();
    let mut text = first.join(separator);
    let rest = items.count();
    if rest > 0 {
        text.push_str(&format!("{before_rest} {rest} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_is_counted() {
        let rows: [(&[&str], &str, &str); 4] = [
            (&[], "", ""),
            (&["a"], "a", "a"),
            (&["a", "b"], "a, b", "a; b"),
            (&["a", "b", "c", "d"], "a, b and 2 more", "a; b; and 2 more"),
        ];
        for (items, as_names, as_clauses) in rows {
            assert_eq!((&*names(items, 2), &*clauses(items, 2)), (as_names, as_clauses));
        }
    }
}
