//! How a packet is served by a map of Services: the map holds a label for it, and rules compare that.
//!
//! ```text
//! @service-ips  daddr . protocol . dport : label
//!
//! service-ips-dispatch    label 1 . 2    dnat to one of two
//!                         label 1 . 3    dnat to one of three
//!                         label 3 . 3    mark for masquerading; dnat to one of three
//!                         label 4 …      goto service-ips-local      policy Local: pods and this node to what is inside,
//!                                                                    the others to service-ips-local-dispatch
//!                         label 5 . 0    vmap @affinity-ips
//!                                        goto service-ips-again      all of this once more
//! ```
//! Where there are many labels, `service-ips-dispatch` has the groups (`label < 1 . 9  goto service-ips-dispatch-1`).
//!
//! A verdict in the map would lead on at once, but for every verdict that is added the kernel looks at all verdicts of all
//! maps in use (`nft_table_validate`), and a Service with one endpoint more needs another one. A map from labels to
//! verdicts would spare the comparisons, but `nft` up to 1.0.6 at least aborts when it lists a rule that looks up in one
//! map what it found in another. And a chain for each label would cost: where the first rule of a chain looks into a map,
//! the kernel looks at all of it (`nf_tables_bind_set`), where there are such rules already it does not.
//!
//! Each rule looks the label up anew, and it may change in between: the packet is then in the wrong group, or the rule is
//! passed. So all labels are compared once more at the end. (Labels are in the rules before they are in a map, and stay
//! there for a while.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_netlink::nf_tables::{
    Chain, Comparison, Expression, Field, Key, Register, Rule, Value, Verdict,
};

use super::label::{Front, Label, Task, first_number};
use super::names::{INSIDE_IPS, INSIDE_NODE_PORTS, SERVICE_IPS, SERVICE_NODE_PORTS};
use super::settings::Settings;

/// The maps that hold labels.
pub(super) const LABELED: [&str; 4] = [SERVICE_IPS, SERVICE_NODE_PORTS, INSIDE_IPS, INSIDE_NODE_PORTS];

/// So many labels a chain compares at most.
const MOST_COMPARED: usize = 16;

/// Into so many groups more of them are divided, however many: a new chain is expensive. The kernel takes chains that lead
/// to one another up to 16 deep, and a packet may pass two dispatches: that is enough for thousands of labels.
const GROUPS: usize = 8;

/// The dispatch of one map.
pub(super) struct Dispatch<'a> {
    map: &'static str,
    front: Front,
    settings: &'a Settings,
}

/// A label, or the first of several, and what becomes of their packets.
#[derive(Clone)]
struct Branch {
    label: Label,
    rule: Rule,
}

impl<'a> Dispatch<'a> {
    pub(super) fn of(map: &'static str, settings: &'a Settings) -> Self {
        let front = match map {
            SERVICE_NODE_PORTS | INSIDE_NODE_PORTS => Front::NodePort,
            _ => Front::Address,
        };
        Dispatch { map, front, settings }
    }

    /// Leads there what the map has.
    pub(super) fn enter(&self, rule: Rule) -> Rule {
        let nothing = Key::new().port(0).port(0);
        self.compare(rule, Comparison::NotEqual, &nothing).then(Verdict::goto(self.chain("dispatch")))
    }

    /// All its chains. The one where it begins is always among them.
    pub(super) fn chains(&self, labels: &BTreeSet<Label>) -> BTreeMap<Arc<str>, Chain> {
        let serve = |labels: &[&Label]| -> Vec<Branch> {
            labels.iter().filter_map(|label| self.serve(**label)).collect()
        };
        let is_part = |label: &&Label| label.task == Task::PartOutside;
        let (part, whole): (Vec<&Label>, Vec<&Label>) = labels.iter().partition(is_part);
        let mut first = serve(&whole);
        if let Some(label) = part.first() {
            let at = first.partition_point(|branch| branch.label < **label);
            first.insert(at, self.part_outside(**label));
        }
        // A label that is alone was not another one before.
        let is_ambiguous = labels.len() > 1;
        let mut chains = BTreeMap::new();
        self.choose("dispatch", &first, is_ambiguous.then_some(("again", &first)), &mut chains);
        if !part.is_empty() {
            chains.insert(self.chain("local").into(), self.local());
            let all = serve(&labels.iter().collect::<Vec<_>>());
            let again = is_ambiguous.then_some(("local-again", &all));
            self.choose("local-dispatch", &serve(&part), again, &mut chains);
        }
        chains
    }

    fn chain(&self, what: &str) -> String {
        format!("{}-{what}", self.map)
    }

    /// Compares the beginning of what the map has.
    fn compare(&self, rule: Rule, op: Comparison, with: &Key) -> Rule {
        let (from, with) = (Register::FIRST, Value::new(with.bytes()));
        rule.map(&self.front.key(self.settings), self.map, from).push(Expression::Compare { from, op, with })
    }

    /// Serves by one rule what has this label; `None` if nothing serves it.
    fn serve(&self, label: Label) -> Option<Branch> {
        let rule = self.compare(Rule::new(), Comparison::Equal, &label.key());
        let rule = match label.task {
            Task::Affinity => rule.verdict_map(&self.front.key(self.settings), self.front.affine()),
            _ if label.endpoints == 0 => return None,
            Task::Masquerade => self.pick(label, rule.set_mark(self.settings.mark)),
            Task::Pick | Task::PickLocal | Task::PartOutside => self.pick(label, rule),
        };
        Some(Branch { label, rule: rule.remark(&label.to_string()) })
    }

    /// Draws an endpoint at random, and sends the packet there.
    fn pick(&self, label: Label, rule: Rule) -> Rule {
        let mut key = self.front.key(self.settings);
        let offset = first_number(label.view(), label.endpoints);
        key.push(Field::Random { modulus: label.endpoints.into(), offset });
        translate(rule.map(&key, self.front.endpoints(), Register::FIRST), self.settings, Register::FIRST)
    }

    /// Leads on what has a label that begins as this one.
    fn part_outside(&self, first: Label) -> Branch {
        let rule = self.compare(Rule::new(), Comparison::Equal, &first.task.key());
        Branch { label: first, rule: rule.then(Verdict::goto(self.chain("local"))) }
    }

    /// Where local endpoints are for what comes from outside.
    fn local(&self) -> Chain {
        let settings = self.settings;
        let inside = |rule: Rule| Dispatch::of(self.front.inside(), settings).enter(rule);
        let mut rules = Vec::new();
        let pods = settings.of_pods(Rule::new(), false);
        rules.extend(pods.map(|rule| inside(rule).remark("short-circuit pod traffic")));
        let local = Rule::new().from_local();
        rules.push(local.clone().set_mark(settings.mark).remark("masquerade local traffic"));
        rules.push(inside(local).remark("short-circuit local traffic"));
        rules.push(Rule::new().then(Verdict::goto(self.chain("local-dispatch"))));
        Chain::of(rules)
    }

    /// Puts a chain that chooses between labels, and those that it leads to. `again`: for labels that change meanwhile.
    fn choose(
        &self,
        name: &str,
        branches: &[Branch],
        again: Option<(&str, &Vec<Branch>)>,
        chains: &mut BTreeMap<Arc<str>, Chain>,
    ) {
        let rules = |branches: &[Branch]| branches.iter().map(|branch| branch.rule.clone()).collect();
        let mut chosen: Vec<Rule> = Vec::new();
        if branches.len() <= MOST_COMPARED {
            chosen = rules(branches);
            chosen.extend(again.map(|(again, _)| Rule::new().then(Verdict::goto(self.chain(again)))));
        } else {
            let end = |group: usize| branches.len() * group / GROUPS;
            for group in 1..=GROUPS {
                let child = format!("{name}-{group}");
                let to = Verdict::goto(self.chain(&child));
                let beyond = branches.get(end(group)).map(|branch| branch.label);
                chosen.push(match beyond {
                    Some(label) => {
                        let rule = self.compare(Rule::new(), Comparison::Less, &label.key());
                        rule.then(to).remark(&format!("less than {label}"))
                    }
                    None => Rule::new().then(to),
                });
                self.choose(&child, &branches[end(group - 1)..end(group)], again, chains);
            }
        }
        chains.insert(self.chain(name).into(), Chain::of(chosen));
        if let Some((again, all)) = again {
            chains.entry(self.chain(again).into()).or_insert_with(|| Chain::of(rules(all)));
        }
    }
}

/// Sends the packet to the address and port in registers.
pub(super) fn translate(rule: Rule, settings: &Settings, address: Register) -> Rule {
    rule.push(Expression::Dnat {
        family: settings.kernel_family(),
        address,
        port: Some(address.after(settings.address().length())),
    })
}
