//! The selector of a Service.

use std::fmt;

/// The labels of a Service's pods, sorted by key, in one string: each Service has a few, and only messages name them.
///
/// Not interned, as users can change them at any rate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSelector {
    /// Keys and values in turn, each followed by [`END`].
    text: Box<str>,
}

/// The end of a key or value. No label has this character.
const END: char = '\0';

impl ServiceSelector {
    /// Returns true if there are no labels.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Returns the labels as keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut parts = self.text.split_terminator(END);
        std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for ServiceSelector {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        let mut text = String::new();
        for (key, value) in labels {
            for part in [key.as_ref(), value.as_ref()] {
                text.extend(part.chars().filter(|character| *character != END));
                text.push(END);
            }
        }
        ServiceSelector { text: text.into() }
    }
}

/// `app=web,tier=front`.
impl fmt::Display for ServiceSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (key, value)) in self.iter().enumerate() {
            write!(f, "{}{key}={value}", if position == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_returned_as_given() {
        let rows: [(&[(&str, &str)], &str); 4] = [
            (&[], ""),
            (&[("app", "web")], "app=web"),
            (
                &[("app", "web"), ("empty", ""), ("example.com/tier", "front")],
                "app=web,empty=,example.com/tier=front",
            ),
            (&[("", "")], "="),
        ];
        for (labels, text) in rows {
            let selector: ServiceSelector = labels.iter().copied().collect();
            assert_eq!(selector.iter().collect::<Vec<_>>(), labels);
            assert_eq!((selector.to_string().as_str(), selector.is_empty()), (text, labels.is_empty()));
        }
        assert_eq!([("a\0b", "c\0")].into_iter().collect::<ServiceSelector>().to_string(), "ab=c");
    }
}
