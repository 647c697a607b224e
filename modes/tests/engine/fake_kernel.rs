//! A kernel in memory that accepts the input of `iptables-restore --noflush` as strictly as the tool.
#![allow(unreachable_pub, reason = "a module of a test binary")]

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use portcullis_modes::iptables::{Fingerprint, Flavour, IptablesKernel, Table, ToolError};
use portcullis_netlink::xtables::TableInfo;

/// The chains of a table with their rules, each without `-A CHAIN`.
pub type Chains = BTreeMap<String, Vec<String>>;

/// The kernel. Clones share its state.
#[derive(Clone)]
pub struct FakeKernel {
    state: Arc<Mutex<State>>,
    flavour: Flavour,
}

/// Looks at the rules after each accepted restore.
type Observer = Box<dyn FnMut(&BTreeMap<Table, Chains>) + Send>;

type ExternalChange = Box<dyn FnOnce(&mut BTreeMap<Table, Chains>) + Send>;

pub struct State {
    pub tables: BTreeMap<Table, Chains>,
    /// Rules with any of these words are rejected.
    pub rejected: BTreeSet<String>,
    /// Errors name the rejected line.
    pub names_lines: bool,
    /// The number of restores that fail for another reason than their rules.
    pub locked: usize,
    /// After this number of restores, one fails for another reason than its rules.
    pub locked_after: Option<usize>,
    /// The next restore fails at this table, after the tables before it are written.
    pub locked_at: Option<Table>,
    /// All restores are rejected at the last line.
    pub rejects_all: bool,
    /// All restores are rejected.
    pub out_of_memory: bool,
    /// The number of next restores that are rejected, whatever their rules are.
    pub out_of_memory_for: usize,
    /// A change by another process just before the next restore.
    pub before_restore: Option<ExternalChange>,
    /// A change by another process just after the next restore.
    pub after_restore: Option<ExternalChange>,
    pub observer: Option<Observer>,
    /// The duration of a restore.
    pub restore_takes: Duration,
    /// The duration of a dump of a table.
    pub dump_takes: Duration,
    pub restores: usize,
    /// The number of lines of the largest restore.
    pub largest: usize,
    /// The rules take longer to list than to write.
    pub is_costly_to_list: bool,
    /// The number of rules of our chains that were listed.
    pub listed: usize,
    generation: u32,
}

impl FakeKernel {
    pub fn new(flavour: Flavour) -> Self {
        let chains = |table: Table| table.built_in().iter().map(|c| ((*c).to_owned(), Vec::new())).collect();
        let state = State {
            tables: Table::ALL.into_iter().map(|t| (t, chains(t))).collect(),
            rejected: BTreeSet::new(),
            names_lines: true,
            locked: 0,
            locked_after: None,
            locked_at: None,
            rejects_all: false,
            out_of_memory: false,
            out_of_memory_for: 0,
            before_restore: None,
            after_restore: None,
            observer: None,
            restore_takes: Duration::ZERO,
            dump_takes: Duration::ZERO,
            restores: 0,
            largest: 0,
            is_costly_to_list: false,
            listed: 0,
            generation: 0,
        };
        FakeKernel { state: Arc::new(Mutex::new(state)), flavour }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the state")
    }

    /// Changes the rules as another process would.
    pub fn change_externally(&self, change: impl FnOnce(&mut BTreeMap<Table, Chains>)) {
        let mut state = self.state();
        change(&mut state.tables);
        state.generation += 1;
    }
}

impl IptablesKernel for FakeKernel {
    fn flavour(&self) -> Flavour {
        self.flavour
    }

    fn restore(&self, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<(), ToolError> {
        let mut text = Vec::new();
        write(&mut text).expect("writing to memory");
        let text = String::from_utf8(text).expect("rules are text");
        let mut state = self.state();
        if let Some(change) = state.before_restore.take() {
            change(&mut state.tables);
            state.generation += 1;
        }
        std::thread::sleep(state.restore_takes);
        state.restores += 1;
        state.largest = state.largest.max(text.lines().count());
        if state.locked > 0 {
            state.locked -= 1;
            return Err(ToolError::Locked { tool: "fake".into() });
        }
        state.locked_after = match state.locked_after {
            Some(0) => {
                state.locked_after = None;
                return Err(ToolError::Locked { tool: "fake".into() });
            }
            after => after.map(|restores| restores - 1),
        };
        if let Some(before) = state.locked_at.take().and_then(|table| text.find(&format!("*{table}\n"))) {
            restore(&mut state, &text[..before]).expect("tables that are accepted");
            return Err(ToolError::Locked { tool: "fake".into() });
        }
        let out_of_memory = state.out_of_memory || state.out_of_memory_for > 0;
        state.out_of_memory_for = state.out_of_memory_for.saturating_sub(1);
        let result = match out_of_memory {
            true => Err((None, "out of memory".to_owned())),
            false if state.rejects_all => Err((Some(text.lines().count()), "rejected".to_owned())),
            false => restore(&mut state, &text),
        };
        if let Some(change) = state.after_restore.take() {
            change(&mut state.tables);
            state.generation += 1;
        }
        if let Some(mut observer) = state.observer.take() {
            observer(&state.tables);
            state.observer = Some(observer);
        }
        result.map_err(|(line, message)| ToolError::Failed {
            tool: "fake".into(),
            status: "exit status: 2".into(),
            message,
            line: line.filter(|_| state.names_lines),
        })
    }

    fn dump(&self, table: Table, line: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
        self.dump_without(table, &|_| false, line)
    }

    fn delete_jumps(&self, _: Table, _: &[String]) -> bool {
        false
    }

    fn is_costly_to_list(&self, _: Table) -> bool {
        self.state().is_costly_to_list
    }

    fn dump_without(
        &self,
        table: Table,
        is_skipped: &dyn Fn(&str) -> bool,
        line: &mut dyn FnMut(&str),
    ) -> Result<(), ToolError> {
        let mut state = self.state();
        std::thread::sleep(state.dump_takes);
        let is_listed = |name: &str| name.starts_with("KUBE-") && !is_skipped(name);
        let own = state.tables[&table].iter().filter(|(name, _)| is_listed(name));
        let listed: usize = own.map(|(_, rules)| rules.len()).sum();
        state.listed += listed;
        let chains = &state.tables[&table];
        line(&format!("*{table}"));
        for name in chains.keys() {
            let policy = if table.built_in().contains(&name.as_str()) { "ACCEPT" } else { "-" };
            line(&format!(":{name} {policy} [0:0]"));
        }
        for (name, rules) in chains.iter().filter(|(name, _)| !is_skipped(name)) {
            rules.iter().for_each(|rule| line(&format!("-A {name} {rule}")));
        }
        line("COMMIT");
        Ok(())
    }

    /// Returns counters of one packet and 60 bytes per letter of a rule.
    fn dump_counters(&self, chain: &str, line: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
        for rule in self.state().tables[&Table::Nat].get(chain).into_iter().flatten() {
            let (before, target) = rule.split_once("-j ").expect("every rule has a target");
            line(&format!("-A {chain} {before}-c {} {} -j {target}", rule.len(), rule.len() * 60));
        }
        Ok(())
    }

    fn chain_fingerprint(&self) -> Option<u64> {
        if self.flavour == Flavour::Legacy {
            return None;
        }
        let state = self.state();
        let mut hasher = DefaultHasher::new();
        for chains in state.tables.values() {
            let ours = chains.iter().filter(|(name, _)| name.starts_with("KUBE-"));
            for (name, rules) in ours {
                let jump = format!("-j {name}");
                let leading = chains.values().flatten().filter(|rule| rule.ends_with(&jump)).count();
                (name, rules.len() + leading).hash(&mut hasher);
            }
        }
        Some(hasher.finish())
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let state = self.state();
        Some(match self.flavour {
            Flavour::Nft => Fingerprint::Generation(state.generation),
            Flavour::Legacy => {
                Fingerprint::Sizes(Table::ALL.map(|table| Some(sizes(table, &state.tables[&table]))))
            }
        })
    }
}

/// Returns the sizes of a table as the kernel counts them: built-in chains come first, each with its policy; each other chain has a
/// head and an end, and the table has an end.
fn sizes(table: Table, chains: &Chains) -> TableInfo {
    const HOOKS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    const ENTRY: usize = 152;
    let mut info =
        TableInfo { valid_hooks: 0, hook_entry: [0; 5], underflow: [0; 5], entries: 1, size: ENTRY as u32 };
    let size_of =
        |rules: &[String]| rules.iter().map(|rule| ENTRY + rule.len().next_multiple_of(8)).sum::<usize>();
    let mut offset = 0;
    for name in table.built_in() {
        let hook = HOOKS.iter().position(|hook| hook == name).expect("a hook of each built-in chain");
        info.valid_hooks |= 1 << hook;
        info.hook_entry[hook] = offset as u32;
        offset += size_of(&chains[*name]);
        info.underflow[hook] = offset as u32;
        offset += ENTRY;
        info.entries += 1 + chains[*name].len() as u32;
    }
    for (_, rules) in chains.iter().filter(|(name, _)| !table.built_in().contains(&name.as_str())) {
        info.entries += 2 + rules.len() as u32;
        offset += 2 * ENTRY + size_of(rules);
    }
    info.size += offset as u32;
    info
}

type Rejection = (Option<usize>, String);

/// Restores table by table: a failure keeps the tables committed before it, as the real tool does.
fn restore(state: &mut State, text: &str) -> Result<(), Rejection> {
    let mut open: Option<(Table, Chains)> = None;
    for (i, line) in text.lines().enumerate() {
        let reject = |message: String| (Some(i + 1), format!("{message}: {line}"));
        if let Some(name) = line.strip_prefix('*') {
            assert!(open.is_none(), "a table begins inside another table: {line}");
            let table = Table::from_name(name).expect("one of our tables");
            open = Some((table, state.tables[&table].clone()));
        } else if line == "COMMIT" {
            let (table, chains) = open.take().expect("COMMIT ends a table");
            check_jumps(&chains).map_err(|message| (None, message))?;
            state.tables.insert(table, chains);
            state.generation += 1;
        } else {
            let (_, chains) = open.as_mut().expect("lines stand in tables");
            if state.rejected.iter().any(|word| line.split([' ', '"', ':']).any(|w| w == word)) {
                return Err(reject("the rule is rejected".into()));
            }
            apply(chains, line).map_err(reject)?;
        }
    }
    assert!(open.is_none(), "the last table has no COMMIT");
    Ok(())
}

fn apply(chains: &mut Chains, line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.splitn(4, ' ').collect();
    if let Some(name) = words[0].strip_prefix(':') {
        assert_eq!(words[1..], ["-", "[0:0]"], "{line}");
        chains.insert(name.to_owned(), Vec::new());
        return Ok(());
    }
    let name = words[1];
    let Some(rules) = chains.get_mut(name) else { return Err(format!("no chain {name}")) };
    let position = || words[2].parse::<usize>().expect("a position");
    match words[0] {
        "-A" => rules.push(line[4 + name.len()..].to_owned()),
        "-I" if position() > rules.len() + 1 => return Err("position too great".into()),
        "-I" => rules.insert(position() - 1, words[3].to_owned()),
        "-D" if position() > rules.len() => return Err("no such rule".into()),
        "-D" => drop(rules.remove(position() - 1)),
        "-X" if !rules.is_empty() => return Err("the chain is not empty".into()),
        "-X" => drop(chains.remove(name)),
        _ => return Err("not understood".into()),
    }
    Ok(())
}

fn check_jumps(chains: &Chains) -> Result<(), String> {
    for (name, rules) in chains {
        for rule in rules {
            let target = rule.rsplit_once("-j ").map(|(_, target)| target).unwrap_or_default();
            if target.starts_with("KUBE-") && !chains.contains_key(target) {
                return Err(format!("chain {name} jumps to {target}, which is not there"));
            }
        }
    }
    Ok(())
}
