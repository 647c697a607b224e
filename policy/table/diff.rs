//! What differs between two states of the table, line by line.

use std::collections::BTreeMap;

use portcullis_netlink::nf_tables::{Chain, Set, Table};

/// What differs in one chain, set, map or counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDifference {
    /// Which one, as in `chain egress`.
    pub place: String,
    /// What is said of it.
    pub about: Option<String>,
    /// The lines that are there; `None` if it is not.
    pub found: Option<Vec<String>>,
    /// The lines that should be.
    pub wanted: Option<Vec<String>>,
}

/// A chain, set, map or counter in lines.
#[derive(Default)]
struct Section {
    about: Option<String>,
    lines: Vec<String>,
}

/// What differs of the kernel's table, by name; chains come first. What is said of a thing is no difference, nor is
/// what counters have counted. `foreign` is what is there and is nothing of ours.
pub fn differences(wanted: &Table, found: Option<&Table>, foreign: &[String]) -> Vec<TableDifference> {
    let mut wanted = sections(wanted);
    let mut all = found.map(sections).unwrap_or_default();
    all.extend(foreign.iter().map(|place| (place.clone(), Section::default())));
    let mut differences = Vec::new();
    for (place, found) in all {
        let wanted = wanted.remove(&place);
        if wanted.as_ref().is_some_and(|wanted| wanted.lines == found.lines) {
            continue;
        }
        let about = wanted.as_ref().and_then(|wanted| wanted.about.clone()).or(found.about);
        let wanted = wanted.map(|wanted| wanted.lines);
        differences.push(TableDifference { place, about, found: Some(found.lines), wanted });
    }
    differences.extend(wanted.into_iter().map(|(place, section)| TableDifference {
        place,
        about: section.about,
        found: None,
        wanted: Some(section.lines),
    }));
    differences.sort_by(|a, b| a.place.cmp(&b.place));
    differences
}

fn sections(table: &Table) -> BTreeMap<String, Section> {
    let text = |comment: &Option<_>| comment.as_ref().map(ToString::to_string);
    let chains = table.chains.iter().map(|(name, chain)| {
        (format!("chain {name}"), Section { about: text(&chain.comment), lines: chain_lines(chain) })
    });
    let sets = table.sets.iter().map(|(name, set)| {
        let kind = if set.spec.is_map() { "map" } else { "set" };
        (format!("{kind} {name}"), Section { about: text(&set.spec.comment), lines: set_lines(set) })
    });
    let counters = table.counters.iter().map(|(name, comment)| {
        (format!("counter {name}"), Section { about: text(comment), lines: Vec::new() })
    });
    chains.chain(sets).chain(counters).collect()
}

fn chain_lines(chain: &Chain) -> Vec<String> {
    lines_of(&Chain { comment: None, ..chain.clone() })
}

/// What kind of set it is, and then its elements.
fn set_lines(set: &Set) -> Vec<String> {
    let mut bare = Set::new(set.spec.clone());
    // A size may be the kernel's own choice.
    (bare.spec.comment, bare.spec.size) = (None, None);
    let mut lines = lines_of(&bare);
    lines.extend(set.element_lines());
    lines
}

fn lines_of(printed: &impl ToString) -> Vec<String> {
    printed.to_string().lines().map(|line| line.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use portcullis_netlink::nf_tables::{DataType, Element, Key, Rule, SetSpec, TableFamily, Verdict};

    use super::*;

    fn table() -> Table {
        let mut table = Table::new(TableFamily::Inet, "t");
        let chain = Chain::new(vec![Rule::new().then(Verdict::Accept)]).with_comment("what it is for");
        table.chains.insert("a".into(), chain);
        let key = |text: &str| Key::from(text.parse::<IpAddr>().expect("an address"));
        let spec = SetSpec::new(&[DataType::Ipv4Addr]).with_comment("peers");
        let set =
            Set::with_elements(spec, [(key("10.0.0.1"), Element::new()), (key("10.0.0.2"), Element::new())]);
        table.sets.insert("s".into(), set);
        table.counters.insert("c".into(), Some("drops".into()));
        table
    }

    #[test]
    fn what_differs_is_told_by_name_and_line() {
        let words = |found: &Table, foreign: &[&str]| -> Vec<String> {
            let foreign: Vec<String> = foreign.iter().map(|text| (*text).to_owned()).collect();
            let told = differences(&table(), Some(found), &foreign).into_iter();
            let words = told.map(|d| format!("{} ({:?}): {:?} {:?}", d.place, d.about, d.found, d.wanted));
            words.collect()
        };
        let changed = |change: fn(&mut Table)| {
            let mut changed = table();
            change(&mut changed);
            changed
        };
        let none: [&str; 0] = [];
        assert_eq!(words(&table(), &[]), none);
        let comments = changed(|table| {
            table.chains.values_mut().for_each(|chain| chain.comment = None);
            table.sets.values_mut().for_each(|set| set.spec.comment = None);
            table.sets.values_mut().for_each(|set| set.spec.size = Some(7));
        });
        assert_eq!(words(&comments, &[]), none);
        type Row<'a> = (fn(&mut Table), &'a [&'a str], &'a str);
        let rows: [Row<'_>; 5] = [
            (
                |table| table.chains.values_mut().for_each(|chain| chain.rules.clear()),
                &[],
                r#"chain a (Some("what it is for")): Some([]) Some(["accept"])"#,
            ),
            (
                |table| table.sets.values_mut().for_each(|set| set.elements.clear()),
                &[],
                r#"set s (Some("peers")): Some(["type ipv4_addr"]) Some(["type ipv4_addr", "10.0.0.1", "10.0.0.2"])"#,
            ),
            (|table| table.counters.clear(), &[], r#"counter c (Some("drops")): None Some([])"#),
            (
                |table| drop(table.chains.insert(Arc::from("mine"), Chain::new(Vec::new()))),
                &[],
                "chain mine (None): Some([]) None",
            ),
            (|_| {}, &["object quota"], "object quota (None): Some([]) None"),
        ];
        for (change, foreign, expected) in rows {
            assert_eq!(words(&changed(change), foreign), [expected]);
        }
        assert_eq!(differences(&table(), None, &[]).len(), 3, "no table at all");
    }
}
