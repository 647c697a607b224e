//! Random changes of a table by another process: every verb of `nft` on every object of the table.
//!
//! A change is a verb, an object and three numbers, which select the object and what is added. They are resolved to a script of
//! `nft` for the table as it is. Scripts that `nft` or the kernel rejects change nothing.

#![allow(dead_code, reason = "each test binary uses its part")]

mod rule_bodies;
mod script;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use portcullis_netlink::nf_tables::{self, TableFamily};
use proptest::prelude::*;

pub(crate) use script::{Object, Verb};

/// One change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExternalChange {
    pub(crate) verb: Verb,
    pub(crate) object: Object,
    pub(crate) numbers: [usize; 3],
}

/// Returns sequences of changes that another process makes before the table is restored.
pub(crate) fn changes() -> impl Strategy<Value = Vec<ExternalChange>> {
    let verb = proptest::sample::select(&Verb::ALL[..]);
    let object = proptest::sample::select(&Object::ALL[..]);
    let change = (verb, object, any::<[u16; 3]>()).prop_map(|(verb, object, numbers)| ExternalChange {
        verb,
        object,
        numbers: numbers.map(usize::from),
    });
    proptest::collection::vec(change, 1..6)
}

/// Makes a change. Returns the script if it was accepted.
pub(crate) fn apply(change: ExternalChange, family: TableFamily, name: &str) -> Option<String> {
    let mut socket = nf_tables::open().expect("root").expect("a kernel with nf_tables");
    let found = nf_tables::read(&mut socket, family, name).expect("the table can be read");
    // It is missing if an earlier change deleted it.
    let (table, _) = found.unwrap_or((nf_tables::Table::new(family, name), Vec::new()));
    let script = script::script(change, &table, &rule_handles(family, name))?;
    nft(&script).then_some(script)
}

/// Makes every change once, each with some numbers, and calls `check` after each that was accepted. Returns the pairs of verbs and
/// objects of which a change was accepted.
pub(crate) fn apply_all(
    family: TableFamily,
    name: &str,
    mut check: impl FnMut(&str),
) -> BTreeSet<(Verb, Object)> {
    let mut accepted = BTreeSet::new();
    for object in Object::ALL {
        for verb in Verb::ALL {
            for number in 0..object.variants(verb) {
                let numbers = [number, number * 5, number * 3];
                let change = ExternalChange { verb, object, numbers };
                if let Some(script) = apply(change, family, name) {
                    accepted.insert((verb, object));
                    check(&script);
                } else if number > 2 && !accepted.contains(&(verb, object)) {
                    // nft does not have the verb.
                    break;
                }
            }
        }
    }
    accepted
}

/// Returns the table as `nft` prints it, without the values of counters. Its objects are sorted: `nft` prints them in the order in
/// which they were added.
pub(crate) fn listed(family: TableFamily, name: &str) -> String {
    let is_counter = |line: &&str| line.trim_start().starts_with("packets ");
    let list = || {
        let output =
            Command::new("nft").args(["list", "table", family.as_str(), name]).output().expect("nft runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("nft prints UTF-8");
        text.lines().filter(|line| !is_counter(line)).map(|line| format!("{line}\n")).collect::<String>()
    };
    // While the kernel resizes a hash table, it may list elements twice.
    let mut text = list();
    while let Some(again) = Some(list()).filter(|again| *again != text) {
        text = again;
    }
    let mut objects = vec![String::new()];
    for line in text.lines().filter(|line| !line.is_empty() && *line != "}") {
        // An object is indented once, and its contents twice.
        if line.starts_with('\t') && !line.starts_with("\t\t") && !line.ends_with('}') {
            objects.push(String::new());
        }
        let object = objects.last_mut().expect("one object at least");
        object.push_str(line);
        object.push('\n');
    }
    objects.sort();
    objects.concat()
}

/// Returns the chains with the handles of their rules.
fn rule_handles(family: TableFamily, name: &str) -> Vec<(String, Vec<u64>)> {
    let output =
        Command::new("nft").args(["-a", "list", "table", family.as_str(), name]).output().expect("nft runs");
    let mut chains: Vec<(String, Vec<u64>)> = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let handle = line.rsplit_once("# handle ").and_then(|(_, handle)| handle.trim().parse().ok());
        match (&words[..], handle, chains.last_mut()) {
            (["chain", chain, ..], ..) => chains.push(((*chain).to_owned(), Vec::new())),
            (["set" | "map" | "counter" | "table", ..], ..) => {}
            (_, Some(handle), Some((_, rules))) => rules.push(handle),
            _ => {}
        }
    }
    chains
}

/// Runs a script in one transaction. Returns true if it was accepted.
fn nft(script: &str) -> bool {
    let mut nft = Command::new("nft");
    nft.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut nft = nft.spawn().expect("nft runs");
    nft.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("nft reads the script");
    nft.wait().expect("nft ends").success()
}

/// Returns the lines that only one of the texts has.
pub(crate) fn difference(before: &str, after: &str) -> String {
    let lines = |text: &str| -> BTreeSet<String> { text.lines().map(str::to_owned).collect() };
    let missing =
        lines(before).difference(&lines(after)).map(|line| format!("- {line}\n")).collect::<String>();
    let added = lines(after).difference(&lines(before)).map(|line| format!("+ {line}\n")).collect::<String>();
    match missing + &added {
        // The same lines in another order, or another number of them.
        same if same.is_empty() => format!("before:\n{before}\nafter:\n{after}"),
        difference => difference,
    }
}
