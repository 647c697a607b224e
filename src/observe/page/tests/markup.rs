//! A check of documents: well-formed markup, and the basics of accessibility.

use std::collections::{BTreeMap, BTreeSet};

/// Elements without content or end tag.
const VOID: [&str; 7] = ["meta", "link", "input", "wbr", "br", "hr", "img"];

/// A tag of a document.
struct Tag<'a> {
    name: &'a str,
    attributes: BTreeMap<&'a str, &'a str>,
    is_end: bool,
    /// The text up to the next tag.
    text: &'a str,
}

/// Asserts that a document is well formed and usable without sight, mouse or script.
pub(super) fn check(case: &str, html: &str) {
    let html = html.strip_prefix("<!DOCTYPE html>").unwrap_or_else(|| panic!("{case}: no doctype"));
    let tags = tags(case, html);
    check_nesting(case, &tags);
    check_document(case, &tags);
    check_content_policy(case, &tags);
    check_headings(case, &tags);
    check_forms(case, &tags);
    check_tables(case, &tags);
}

/// Splits a document into its tags. Panics at a character that has to be escaped.
fn tags<'a>(case: &str, html: &'a str) -> Vec<Tag<'a>> {
    let mut tags = Vec::new();
    let mut rest = html;
    while !rest.is_empty() {
        let open = rest.strip_prefix('<').unwrap_or_else(|| panic!("{case}: expected a tag at {:.80}", rest));
        let (tag, after) = open.split_once('>').unwrap_or_else(|| panic!("{case}: open tag {open:.80}"));
        let text_end = after.find('<').unwrap_or(after.len());
        let (text, next) = after.split_at(text_end);
        check_text(case, text);
        let (is_end, tag) = tag.strip_prefix('/').map_or((false, tag), |tag| (true, tag));
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric()), "{case}: tag {tag:?}");
        tags.push(Tag { name, attributes: parse_attributes(case, attributes), is_end, text });
        rest = next;
    }
    tags
}

fn check_text(case: &str, text: &str) {
    assert!(!text.contains('>'), "{case}: unescaped > in {text:?}");
    for (at, _) in text.match_indices('&') {
        let entity = ["&amp;", "&lt;", "&gt;", "&quot;"].iter().any(|entity| text[at..].starts_with(entity));
        assert!(entity, "{case}: unescaped & in {text:?}");
    }
}

fn parse_attributes<'a>(case: &str, text: &'a str) -> BTreeMap<&'a str, &'a str> {
    let mut attributes = BTreeMap::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = rest.find([' ', '=']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let (value, after) = match after.strip_prefix("=\"") {
            Some(quoted) => {
                quoted.split_once('"').unwrap_or_else(|| panic!("{case}: unquoted value in {text:?}"))
            }
            None => ("", after),
        };
        check_text(case, value);
        assert!(attributes.insert(name, value).is_none(), "{case}: two attributes {name} in {text:?}");
        rest = after.trim_start();
    }
    attributes
}

fn check_nesting(case: &str, tags: &[Tag<'_>]) {
    let mut open: Vec<&str> = Vec::new();
    for tag in tags {
        match tag.is_end {
            true => assert_eq!(open.pop(), Some(tag.name), "{case}: end tag"),
            false if VOID.contains(&tag.name) => {}
            false => open.push(tag.name),
        }
    }
    assert!(open.is_empty(), "{case}: {open:?} have no end");
}

fn starts<'a>(tags: &'a [Tag<'a>], name: &'a str) -> impl Iterator<Item = &'a Tag<'a>> + 'a {
    tags.iter().filter(move |tag| tag.name == name && !tag.is_end)
}

fn check_document(case: &str, tags: &[Tag<'_>]) {
    assert_eq!(tags[0].attributes.get("lang"), Some(&"en"), "{case}: language");
    for (name, number) in [("main", 1), ("h1", 1), ("header", 1), ("footer", 1), ("title", 1)] {
        assert_eq!(starts(tags, name).count(), number, "{case}: number of {name}");
    }
    assert!(starts(tags, "title").all(|title| !title.text.trim().is_empty()), "{case}: empty title");
    let mut ids = BTreeSet::new();
    for id in tags.iter().filter_map(|tag| tag.attributes.get("id")) {
        assert!(ids.insert(id), "{case}: two elements with the id {id}");
    }
    for tag in tags {
        for name in ["for", "aria-labelledby", "aria-describedby"] {
            let targets = tag.attributes.get(name).into_iter().flat_map(|ids| ids.split(' '));
            targets.for_each(|id| assert!(ids.contains(&id), "{case}: {name}={id} names no element"));
        }
    }
    for navigation in starts(tags, "nav") {
        assert!(navigation.attributes.contains_key("aria-label"), "{case}: a nav without a name");
    }
}

/// Nothing that the policy of the responses forbids: it would be missing on the page.
fn check_content_policy(case: &str, tags: &[Tag<'_>]) {
    for tag in tags {
        for (name, value) in &tag.attributes {
            assert!(!name.starts_with("on") && *name != "style", "{case}: inline {name}={value}");
            if ["href", "src", "action"].contains(name) {
                assert!(value.starts_with(['/', '#']) && !value.starts_with("//"), "{case}: {name}={value}");
            }
        }
        let is_inline = ["script", "style"].contains(&tag.name) && !tag.is_end && !tag.text.is_empty();
        assert!(!is_inline, "{case}: inline {}", tag.name);
    }
}

fn check_headings(case: &str, tags: &[Tag<'_>]) {
    let mut before = 0;
    for tag in tags.iter().filter(|tag| !tag.is_end) {
        let level = tag.name.strip_prefix('h').and_then(|level| level.parse::<u8>().ok());
        if let Some(level) = level {
            assert!(level <= before + 1, "{case}: h{level} after h{before}");
            before = level;
        }
    }
}

fn check_forms(case: &str, tags: &[Tag<'_>]) {
    let labelled: BTreeSet<&str> =
        starts(tags, "label").filter_map(|label| label.attributes.get("for").copied()).collect();
    for input in starts(tags, "input").filter(|input| input.attributes.get("type") != Some(&"hidden")) {
        let id = input.attributes.get("id");
        assert!(
            id.is_some_and(|id| labelled.contains(id)),
            "{case}: input {:?} has no label",
            input.attributes
        );
    }
    for form in starts(tags, "form") {
        assert_eq!(form.attributes.get("method"), Some(&"get"), "{case}: forms must not change anything");
    }
    for button in starts(tags, "button") {
        assert!(button.attributes.contains_key("type") && !button.text.is_empty(), "{case}: button");
    }
}

fn check_tables(case: &str, tags: &[Tag<'_>]) {
    assert_eq!(starts(tags, "table").count(), starts(tags, "caption").count(), "{case}: captions");
    for header in starts(tags, "th") {
        let scope = header.attributes.get("scope").copied();
        assert!(matches!(scope, Some("col" | "row")), "{case}: a header without a scope");
    }
    for icon in starts(tags, "svg") {
        assert_eq!(icon.attributes.get("aria-hidden"), Some(&"true"), "{case}: icons are decoration");
    }
}
