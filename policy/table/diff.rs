//! Line-by-line comparison of the desired and the actual table.

use std::collections::BTreeMap;

use portcullis_netlink::nf_tables::{Chain, Set, Table};

use super::names::PICKED_UP;
use super::observed;

/// Differences in one chain, set, map or counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDifference {
    /// The object, as in `chain egress`.
    pub object: String,
    /// The object's comment.
    pub comment: Option<String>,
    /// The actual lines; `None` if the object does not exist.
    pub actual: Option<Vec<String>>,
    /// The desired lines; `None` if the object should not exist.
    pub desired: Option<Vec<String>>,
}

/// Lines and comment of a chain, set, map or counter.
#[derive(Default)]
struct Section {
    comment: Option<String>,
    lines: Vec<String>,
}

/// Compares the kernel's table with the desired one. Returns differences by name, chains first. Comments and counter values
/// are ignored, and so are the protocols that the daemon picks up for a while after its start, and the rules that log drops
/// while an observer is connected. `foreign` are objects in the
/// kernel's table that Portcullis does not know.
pub fn differences(desired: &Table, actual: Option<&Table>, foreign: &[String]) -> Vec<TableDifference> {
    let mut desired = sections(desired);
    let mut all = actual.map(|actual| sections(&without_observers(actual))).unwrap_or_default();
    all.extend(foreign.iter().map(|object| (object.clone(), Section::default())));
    let mut differences = Vec::new();
    for (object, actual) in all {
        let desired = desired.remove(&object);
        if desired.as_ref().is_some_and(|desired| desired.lines == actual.lines) {
            continue;
        }
        let comment = desired.as_ref().and_then(|desired| desired.comment.clone()).or(actual.comment);
        let desired = desired.map(|desired| desired.lines);
        differences.push(TableDifference { object, comment, actual: Some(actual.lines), desired });
    }
    differences.extend(desired.into_iter().map(|(object, section)| TableDifference {
        object,
        comment: section.comment,
        actual: None,
        desired: Some(section.lines),
    }));
    differences.sort_by(|a, b| a.object.cmp(&b.object));
    differences
}

fn without_observers(actual: &Table) -> Table {
    let mut table = actual.clone();
    observed::remove_from(&mut table);
    table
}

fn sections(table: &Table) -> BTreeMap<String, Section> {
    let text = |comment: &Option<_>| comment.as_ref().map(ToString::to_string);
    let chains = table.chains.iter().map(|(name, chain)| {
        (format!("chain {name}"), Section { comment: text(&chain.comment), lines: chain_lines(chain) })
    });
    let sets = table.sets.iter().map(|(name, set)| {
        let kind = if set.spec.is_map() { "map" } else { "set" };
        let lines = set_lines(set, &**name != PICKED_UP);
        (format!("{kind} {name}"), Section { comment: text(&set.spec.comment), lines })
    });
    let counters = table.counters.iter().map(|(name, comment)| {
        (format!("counter {name}"), Section { comment: text(comment), lines: Vec::new() })
    });
    chains.chain(sets).chain(counters).collect()
}

fn chain_lines(chain: &Chain) -> Vec<String> {
    lines_of(&Chain { comment: None, ..chain.clone() })
}

/// Returns the set's properties, then its elements if they are compared.
fn set_lines(set: &Set, with_elements: bool) -> Vec<String> {
    let mut bare = Set::new(set.spec.clone());
    // The kernel may choose the size.
    (bare.spec.comment, bare.spec.size) = (None, None);
    let mut lines = lines_of(&bare);
    lines.extend(with_elements.then(|| set.element_lines()).into_iter().flatten());
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
        table.sets.insert(PICKED_UP.into(), Set::new(SetSpec::new(&[DataType::InetProto])));
        table.counters.insert("c".into(), Some("drops".into()));
        table
    }

    #[test]
    fn differences_are_reported_by_object_and_line() {
        let lines = |actual: &Table, foreign: &[&str]| -> Vec<String> {
            let foreign: Vec<String> = foreign.iter().map(|text| (*text).to_owned()).collect();
            let differences = differences(&table(), Some(actual), &foreign).into_iter();
            let lines = differences
                .map(|d| format!("{} ({:?}): {:?} {:?}", d.object, d.comment, d.actual, d.desired));
            lines.collect()
        };
        let changed = |change: fn(&mut Table)| {
            let mut changed = table();
            change(&mut changed);
            changed
        };
        let none: [&str; 0] = [];
        assert_eq!(lines(&table(), &[]), none);
        let comments = changed(|table| {
            table.chains.values_mut().for_each(|chain| chain.comment = None);
            table.sets.values_mut().for_each(|set| set.spec.comment = None);
            table.sets.values_mut().for_each(|set| set.spec.size = Some(7));
            // The daemon adds it for two minutes.
            let picked_up = table.sets.get_mut(PICKED_UP).expect("it is there");
            picked_up.elements.insert(Key::new().protocol(6), Element::new());
        });
        assert_eq!(lines(&comments, &[]), none);
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
            assert_eq!(lines(&changed(change), foreign), [expected]);
        }
        assert_eq!(differences(&table(), None, &[]).len(), 4, "no table at all");
    }
}
