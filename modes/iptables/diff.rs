//! How two sets of rules differ, told Service by Service.
//!
//! Differences that mean nothing are left out: the order of Services in the chains that they share, the order
//! of jumps in built-in chains (a repaired jump goes to the top, wherever it was), blanks, and the comments on
//! endpoints, which come and go with the size of the cluster.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};

use super::chain::{SharedChain, Table, belongs_to_a_service};
use super::rule_set::RuleSet;
use super::saved_rule::SavedRule;

/// Whom rules belong to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// No single Service.
    Base,
    /// A Service, as namespace/name.
    Service(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Base => f.write_str("base rules"),
            Subject::Service(name) => f.write_str(name),
        }
    }
}

/// What differs in the rules of one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Whose rules.
    pub subject: Subject,
    /// The chains in which they differ, by table and name. In chains that all share, the rules of others are
    /// left out.
    pub chains: Vec<ChainDifference>,
}

/// What differs in one chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainDifference {
    /// The chain's table.
    pub table: Table,
    /// The chain's name.
    pub chain: String,
    /// Its rules as wanted; `None` if it is not wanted.
    pub wanted: Option<Vec<Line>>,
    /// Its rules as found; `None` if it is not there.
    pub found: Option<Vec<Line>>,
}

/// A rule, `-A CHAIN …`. Two are equal if they do the same in the same place.
#[derive(Clone, Debug)]
pub struct Line {
    /// The rule as written or read.
    pub text: String,
    meaning: String,
}

impl Line {
    fn new(chain: &str, text: &str) -> Line {
        let rule = SavedRule::parse(text);
        let words = rule.as_ref().map(|rule| -> Vec<&str> {
            // Large clusters do without comments on endpoints.
            if belongs_to_a_service(chain) { rule.effect().collect() } else { rule.words().to_vec() }
        });
        let meaning = words.map_or_else(|| text.to_owned(), |words| words.join(" "));
        Line { text: text.to_owned(), meaning }
    }
}

impl AsRef<str> for Line {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Line {
    fn eq(&self, other: &Self) -> bool {
        self.meaning == other.meaning
    }
}

impl Eq for Line {}

impl PartialOrd for Line {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Line {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.meaning.cmp(&other.meaning)
    }
}

impl Hash for Line {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.meaning.hash(state);
    }
}

/// How `found` differs from `wanted`, by subject: base rules first, then Services by name. Empty if what is
/// found does what is wanted.
pub fn differences(wanted: &RuleSet, found: &RuleSet) -> Vec<Difference> {
    let owners = Owners::of([wanted, found]);
    let (wanted, found) = (Parts::of(wanted, &owners), Parts::of(found, &owners));
    let keys: BTreeSet<&Key<'_>> = wanted.0.keys().chain(found.0.keys()).collect();
    let mut differences: Vec<Difference> = Vec::new();
    for key in keys {
        let (subject, table, chain) = *key;
        // A chain that all share is there or not for all.
        let shared = subject.is_some() && is_shared(table, chain);
        let none = Vec::new();
        let lines = |parts: &Parts<'_>| -> Option<Vec<Line>> {
            let lines = parts.0.get(key).or(shared.then_some(&none))?;
            let mut lines: Vec<Line> = lines.iter().map(|text| Line::new(chain, text)).collect();
            if table.built_in().contains(&chain) {
                lines.sort();
            }
            Some(lines)
        };
        let (wanted, found) = (lines(&wanted), lines(&found));
        if wanted == found {
            continue;
        }
        let difference = ChainDifference { table, chain: chain.to_owned(), wanted, found };
        let subject = subject.map_or(Subject::Base, |name| Subject::Service(name.to_owned()));
        match differences.last_mut().filter(|last| last.subject == subject) {
            Some(last) => last.chains.push(difference),
            None => differences.push(Difference { subject, chains: vec![difference] }),
        }
    }
    differences
}

fn is_shared(table: Table, chain: &str) -> bool {
    SharedChain::ALL.iter().any(|shared| shared.table() == table && shared.name() == chain)
}

/// A subject (`None` for the base rules), and a chain with rules of it.
type Key<'a> = (Option<&'a str>, Table, &'a str);

/// The rules of a set by subject and chain, in their order.
struct Parts<'a>(BTreeMap<Key<'a>, Vec<&'a str>>);

impl<'a> Parts<'a> {
    fn of(set: &'a RuleSet, owners: &'a Owners) -> Self {
        let mut parts = Parts(BTreeMap::new());
        for (&table, chains) in &set.tables {
            for (chain, lines) in chains {
                if is_shared(table, chain) {
                    parts.add_shared(table, chain, lines, owners);
                } else {
                    let owner = owners.of_chain(chain).filter(|_| table == Table::Nat);
                    parts.0.insert((owner, table, chain), lines.iter().map(String::as_str).collect());
                }
            }
        }
        parts
    }

    /// Parts a shared chain by Service. The order of a Service's ports is left out of account as that of
    /// Services is; the order of a port's rules is not.
    fn add_shared(&mut self, table: Table, chain: &'a str, lines: &'a [String], owners: &'a Owners) {
        self.0.insert((None, table, chain), Vec::new());
        let mut of_services: Vec<(&str, &str, &str)> = Vec::new();
        let mut tail = false;
        for line in lines {
            let port = SavedRule::parse(line).and_then(|rule| port_of(&rule));
            match owners.of_line(line).filter(|_| !tail) {
                Some(owner) => of_services.push((owner, port.unwrap_or_default(), line)),
                // What belongs to no Service must come last, so a rule of a Service after it is out of place.
                None => {
                    tail = true;
                    self.0.entry((None, table, chain)).or_default().push(line);
                }
            }
        }
        of_services.sort_by_key(|(owner, port, _)| (*owner, *port));
        for (owner, _, line) in of_services {
            self.0.entry((Some(owner), table, chain)).or_default().push(line);
        }
    }
}

/// Which Service each of the chains of Services belongs to.
struct Owners {
    by_chain: HashMap<String, String>,
}

impl Owners {
    /// By comments, then by who refers to a chain: in large clusters the chains of endpoints bear none. The
    /// names are hashes of the port's name, so a name has the same owner in every set.
    fn of(sets: [&RuleSet; 2]) -> Owners {
        let mut by_chain: HashMap<String, String> = HashMap::new();
        let mut unexplained: Vec<(&str, &str)> = Vec::new();
        let nat = sets.into_iter().filter_map(|set| set.tables.get(&Table::Nat));
        for line in nat.flat_map(|chains| chains.values().flatten()) {
            let Some(rule) = SavedRule::parse(line) else { continue };
            let target = rule.target().filter(|target| belongs_to_a_service(target));
            let chain = Some(rule.chain).filter(|chain| belongs_to_a_service(chain));
            if let Some(service) = port_of(&rule).map(service_of) {
                for chain in chain.into_iter().chain(target) {
                    by_chain.entry(chain.to_owned()).or_insert_with(|| service.to_owned());
                }
            } else if let (Some(from), Some(to)) = (chain, target) {
                unexplained.push((from, to));
            }
        }
        // From the shared chains it is three jumps to an endpoint at most, each found in one round.
        loop {
            let before = by_chain.len();
            for &(from, to) in &unexplained {
                if !by_chain.contains_key(to)
                    && let Some(owner) = by_chain.get(from).cloned()
                {
                    by_chain.insert(to.to_owned(), owner);
                }
            }
            if by_chain.len() == before {
                return Owners { by_chain };
            }
        }
    }

    fn of_chain(&self, chain: &str) -> Option<&str> {
        self.by_chain.get(chain).map(String::as_str)
    }

    /// The owner of a rule in a shared chain.
    fn of_line<'a>(&'a self, line: &'a str) -> Option<&'a str> {
        let rule = SavedRule::parse(line)?;
        port_of(&rule).map(service_of).or_else(|| self.of_chain(rule.target()?))
    }
}

/// The port of a Service that a rule's comment names. Ours need no escapes.
fn port_of<'a>(rule: &SavedRule<'a>) -> Option<&'a str> {
    match rule.comment()? {
        Cow::Borrowed(comment) => comment.split(' ').find(|word| is_port(word)),
        Cow::Owned(_) => None,
    }
}

/// `namespace/name` or `namespace/name:port`: a slash is in no other word of our comments.
fn is_port(word: &str) -> bool {
    word.split_once('/').is_some_and(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
}

fn service_of(port: &str) -> &str {
    port.split_once(':').map_or(port, |(service, _)| service)
}
