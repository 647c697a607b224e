//! Query parameters of the pages, and links with them.

use std::borrow::Cow;

use form_urlencoded::{Serializer, parse};

/// The largest length of a value, in bytes. No name of an object is longer.
const MAX_VALUE: usize = 512;

/// The query parameters of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Parses the part of an address after `?`. Values that are too long are cut off.
    pub(super) fn parse(query: Option<&'a str>) -> Self {
        let pairs = parse(query.unwrap_or_default().as_bytes());
        Query(pairs.map(|(name, value)| (name, truncated(value))).collect())
    }

    /// Returns a value without surrounding space; empty if it is not given.
    pub(super) fn text(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.trim()).unwrap_or_default()
    }

    /// Returns a value, unless it is empty.
    pub(super) fn given(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// Returns true if a check box is set.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.given(name).is_some()
    }

    /// Returns a page number, counted from 1. Anything else is the first page.
    pub(super) fn page(&self) -> usize {
        self.text("page").parse().unwrap_or(1).max(1)
    }
}

fn truncated(value: Cow<'_, str>) -> Cow<'_, str> {
    if value.len() <= MAX_VALUE {
        return value;
    }
    let end = (0..=MAX_VALUE).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
    Cow::Owned(value[..end].to_owned())
}

/// Returns an address with these query parameters. Empty values are left out.
pub(super) fn link<'a>(path: &str, parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut query = Serializer::new(String::new());
    for (name, value) in parameters {
        if !value.is_empty() {
            query.append_pair(name, value);
        }
    }
    let query = query.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_queries_are_inverse() {
        let link = link("/services", [("q", "a&b=<script>\"ü"), ("namespace", ""), ("page", "3")]);
        assert_eq!(link, "/services?q=a%26b%3D%3Cscript%3E%22%C3%BC&page=3");
        let query = Query::parse(link.split_once('?').map(|(_, query)| query));
        assert_eq!((query.text("q"), query.text("namespace"), query.page()), ("a&b=<script>\"ü", "", 3));
        assert_eq!(Query::parse(Some("page=0")).page(), 1);
        assert_eq!(Query::parse(Some("page=-1&page=9")).page(), 1);
        assert_eq!(Query::parse(None).given("q"), None);
        assert_eq!(Query::parse(Some("q=+%20x+")).text("q"), "x");
    }

    #[test]
    fn values_are_cut_off_between_characters() {
        let long = format!("q=x{}", "ü".repeat(400));
        let query = Query::parse(Some(&long));
        assert_eq!(query.text("q"), format!("x{}", "ü".repeat(255)));
    }
}
