//! The chains to which rules and elements lead.

use std::collections::BTreeSet;

use super::table::Table;

/// Returns the chains of a table to which lines of rules or elements jump or go, and those to which these do, in the order in
/// which they are found, each with its lines.
pub fn reachable_chains(table: &Table, lines: &[String]) -> Vec<(String, Vec<String>)> {
    let (mut seen, mut found): (BTreeSet<String>, Vec<(String, Vec<String>)>) = Default::default();
    let mut next: Vec<String> = targets(lines);
    while !next.is_empty() {
        let mut further = Vec::new();
        for name in next {
            let Some(chain) = table.chains.get(name.as_str()) else { continue };
            if !seen.insert(name.clone()) {
                continue;
            }
            let lines: Vec<String> = chain.to_string().lines().map(|line| line.trim().to_owned()).collect();
            further.extend(targets(&lines));
            found.push((format!("chain {name}"), lines));
        }
        next = further;
    }
    found
}

/// Returns the names of chains after `jump` and `goto`.
fn targets(lines: &[String]) -> Vec<String> {
    let of_line = |line: &String| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let jumps = words.windows(2).filter(|pair| matches!(pair[0], "jump" | "goto"));
        jumps.map(|pair| pair[1].trim_end_matches([',', ';']).to_owned()).collect::<Vec<String>>()
    };
    lines.iter().flat_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nf_tables::{Chain, Expression, Rule, TableFamily, Verdict};

    #[test]
    fn chains_are_followed_and_listed_once() {
        let mut table = Table::new(TableFamily::Inet, "t");
        let goto = |name: &str| Rule::from_parts(vec![Expression::Verdict(Verdict::Goto(name.into()))], None);
        table.chains.insert("a".into(), Chain::new(vec![goto("b"), goto("c")]));
        table.chains.insert("b".into(), Chain::new(vec![goto("c")]));
        table.chains.insert("c".into(), Chain::new(vec![goto("a")]));
        table.chains.insert("other".into(), Chain::new(Vec::new()));
        let found =
            reachable_chains(&table, &["10.0.0.1 : goto a".to_owned(), "10.0.0.2 : accept".to_owned()]);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["chain a", "chain b", "chain c"]);
        assert_eq!(found[0].1, ["goto b", "goto c"]);
        assert!(reachable_chains(&table, &["drop".to_owned()]).is_empty());
    }
}
