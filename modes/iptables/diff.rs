//! The difference between two rule sets, by Service.
//!
//! Differences without effect are ignored: the order of Services in shared chains, the order of jumps in built-in
//! chains (a restored jump is at the top, wherever it was), white space, and comments on endpoints, which depend on the
//! size of the cluster.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};

use super::chain::{SharedChain, Table, is_service_chain};
use super::rule_set::RuleSet;
use super::saved_rule::SavedRule;

/// The owner of rules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleOwner {
    /// The base rules, which belong to no Service.
    Base,
    /// A Service, as namespace/name.
    Service(String),
}

impl fmt::Display for RuleOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuleOwner::Base => f.write_str("base rules"),
            RuleOwner::Service(name) => f.write_str(name),
        }
    }
}

/// The difference in the rules of one owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleDiff {
    /// The owner.
    pub owner: RuleOwner,
    /// The chains that differ, by table and name. For shared chains, with the rules of this owner only.
    pub chains: Vec<ChainDiff>,
}

/// The difference in one chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainDiff {
    /// The chain's table.
    pub table: Table,
    /// The chain's name.
    pub chain: String,
    /// Its desired rules; `None` if the chain is not desired.
    pub desired: Option<Vec<RuleLine>>,
    /// Its rules in the kernel; `None` if the chain does not exist.
    pub actual: Option<Vec<RuleLine>>,
}

/// A rule, `-A CHAIN …`. Two rules are equal if they have the same effect in the same place.
#[derive(Clone, Debug)]
pub struct RuleLine {
    /// The rule's text.
    pub text: String,
    effect: String,
}

impl RuleLine {
    fn new(chain: &str, text: &str) -> RuleLine {
        let rule = SavedRule::parse(text);
        let words = rule.as_ref().map(|rule| -> Vec<&str> {
            // Rule sets of large clusters have no comments on endpoints.
            if is_service_chain(chain) { rule.effect().collect() } else { rule.words().to_vec() }
        });
        let effect = words.map_or_else(|| text.to_owned(), |words| words.join(" "));
        RuleLine { text: text.to_owned(), effect }
    }
}

impl AsRef<str> for RuleLine {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl PartialEq for RuleLine {
    fn eq(&self, other: &Self) -> bool {
        self.effect == other.effect
    }
}

impl Eq for RuleLine {}

impl PartialOrd for RuleLine {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RuleLine {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.effect.cmp(&other.effect)
    }
}

impl Hash for RuleLine {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.effect.hash(state);
    }
}

/// Compares the kernel's rules with the desired ones. Returns the differences by owner: base rules first, then Services
/// by name; none if both rule sets have the same effect.
pub fn compare_rules(desired: &RuleSet, actual: &RuleSet) -> Vec<RuleDiff> {
    let owners = Owners::from_rule_sets([desired, actual]);
    let (desired, actual) = (RulesByOwner::new(desired, &owners), RulesByOwner::new(actual, &owners));
    let keys: BTreeSet<&RuleKey<'_>> = desired.0.keys().chain(actual.0.keys()).collect();
    let mut differences: Vec<RuleDiff> = Vec::new();
    for key in keys {
        let (owner, table, chain) = *key;
        // A shared chain exists for all Services or for none.
        let shared = owner.is_some() && is_shared(table, chain);
        let none = Vec::new();
        let lines = |parts: &RulesByOwner<'_>| -> Option<Vec<RuleLine>> {
            let lines = parts.0.get(key).or(shared.then_some(&none))?;
            let mut lines: Vec<RuleLine> = lines.iter().map(|text| RuleLine::new(chain, text)).collect();
            if table.built_in().contains(&chain) {
                lines.sort();
            }
            Some(lines)
        };
        let (desired, actual) = (lines(&desired), lines(&actual));
        if desired == actual {
            continue;
        }
        let difference = ChainDiff { table, chain: chain.to_owned(), desired, actual };
        let owner = owner.map_or(RuleOwner::Base, |name| RuleOwner::Service(name.to_owned()));
        match differences.last_mut().filter(|last| last.owner == owner) {
            Some(last) => last.chains.push(difference),
            None => differences.push(RuleDiff { owner, chains: vec![difference] }),
        }
    }
    differences
}

fn is_shared(table: Table, chain: &str) -> bool {
    SharedChain::ALL.iter().any(|shared| shared.table() == table && shared.name() == chain)
}

/// An owner (`None` for the base rules), and a chain with rules of it.
type RuleKey<'a> = (Option<&'a str>, Table, &'a str);

/// The rules of a set by owner and chain, in their order.
struct RulesByOwner<'a>(BTreeMap<RuleKey<'a>, Vec<&'a str>>);

impl<'a> RulesByOwner<'a> {
    fn new(set: &'a RuleSet, owners: &'a Owners) -> Self {
        let mut parts = RulesByOwner(BTreeMap::new());
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

    /// Divides a shared chain by Service. The order of a Service's ports is ignored, as is that of Services; the order
    /// of a port's rules is not.
    fn add_shared(&mut self, table: Table, chain: &'a str, lines: &'a [String], owners: &'a Owners) {
        self.0.insert((None, table, chain), Vec::new());
        let mut of_services: Vec<(&str, &str, &str)> = Vec::new();
        let mut tail = false;
        for line in lines {
            let port = SavedRule::parse(line).and_then(|rule| port_of(&rule));
            match owners.of_line(line).filter(|_| !tail) {
                Some(owner) => of_services.push((owner, port.unwrap_or_default(), line)),
                // Rules of no Service must come last, so a Service's rule after them is out of place.
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

/// The Service of each Service chain.
struct Owners {
    by_chain: HashMap<String, String>,
}

impl Owners {
    /// Finds the Service by comments, then by jumps: in large clusters endpoint chains have no comments. The names are
    /// hashes of the port's name, so a name has the same owner in every rule set.
    fn from_rule_sets(sets: [&RuleSet; 2]) -> Owners {
        let mut by_chain: HashMap<String, String> = HashMap::new();
        let mut without_comment: Vec<(&str, &str)> = Vec::new();
        let nat = sets.into_iter().filter_map(|set| set.tables.get(&Table::Nat));
        for line in nat.flat_map(|chains| chains.values().flatten()) {
            let Some(rule) = SavedRule::parse(line) else { continue };
            let target = rule.target().filter(|target| is_service_chain(target));
            let chain = Some(rule.chain).filter(|chain| is_service_chain(chain));
            if let Some(service) = port_of(&rule).map(service_of) {
                for chain in chain.into_iter().chain(target) {
                    by_chain.entry(chain.to_owned()).or_insert_with(|| service.to_owned());
                }
            } else if let (Some(from), Some(to)) = (chain, target) {
                without_comment.push((from, to));
            }
        }
        // From a shared chain to an endpoint there are three jumps at most, each actual in one round.
        loop {
            let before = by_chain.len();
            for &(from, to) in &without_comment {
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

    /// Returns the owner of a rule in a shared chain.
    fn of_line<'a>(&'a self, line: &'a str) -> Option<&'a str> {
        let rule = SavedRule::parse(line)?;
        port_of(&rule).map(service_of).or_else(|| self.of_chain(rule.target()?))
    }
}

/// Returns the Service port that a rule's comment names. Our comments need no escapes.
fn port_of<'a>(rule: &SavedRule<'a>) -> Option<&'a str> {
    match rule.comment()? {
        Cow::Borrowed(comment) => comment.split(' ').find(|word| is_port(word)),
        Cow::Owned(_) => None,
    }
}

/// Returns true for `namespace/name` or `namespace/name:port`: no other word of our comments has a slash.
fn is_port(word: &str) -> bool {
    word.split_once('/').is_some_and(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
}

fn service_of(port: &str) -> &str {
    port.split_once(':').map_or(port, |(service, _)| service)
}
