//! Scripts of `nft` for changes.

use portcullis_netlink::nf_tables::{Set, Table, TableFamily};

use super::ExternalChange;
use super::rule_bodies::rule_body;

/// A verb of `nft`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Add,
    Create,
    Insert,
    Replace,
    Delete,
    Destroy,
    Flush,
    Rename,
    Reset,
}

impl Verb {
    pub(crate) const ALL: [Verb; 9] = [
        Verb::Add,
        Verb::Create,
        Verb::Insert,
        Verb::Replace,
        Verb::Delete,
        Verb::Destroy,
        Verb::Flush,
        Verb::Rename,
        Verb::Reset,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Verb::Add => "add",
            Verb::Create => "create",
            Verb::Insert => "insert",
            Verb::Replace => "replace",
            Verb::Delete => "delete",
            Verb::Destroy => "destroy",
            Verb::Flush => "flush",
            Verb::Rename => "rename",
            Verb::Reset => "reset",
        }
    }
}

/// An object of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    Ruleset,
    Table,
    Chain,
    Rule,
    Set,
    Element,
    Flowtable,
    Counter,
    Quota,
    Limit,
    CtHelper,
    CtTimeout,
    CtExpectation,
    Synproxy,
}

impl Object {
    pub(crate) const ALL: [Object; 14] = [
        Object::Ruleset,
        Object::Table,
        Object::Chain,
        Object::Rule,
        Object::Set,
        Object::Element,
        Object::Flowtable,
        Object::Counter,
        Object::Quota,
        Object::Limit,
        Object::CtHelper,
        Object::CtTimeout,
        Object::CtExpectation,
        Object::Synproxy,
    ];

    /// Returns how many numbers to try with a verb.
    pub(crate) fn variants(self, verb: Verb) -> usize {
        match (self, verb) {
            (Object::Ruleset, _) => 1,
            (Object::Rule, Verb::Add) => 36,
            (Object::Chain | Object::Set | Object::Element, Verb::Add) => 16,
            (Object::Rule | Object::Chain | Object::Set | Object::Element, _) => 6,
            _ => 2,
        }
    }
}

/// The name of objects that are added.
const NAME: &str = "foreign";

/// Returns the script of a change; `None` if `nft` has no such verb for the object, or the table has no such object.
pub(super) fn script(
    change: ExternalChange,
    table: &Table,
    handles: &[(String, Vec<u64>)],
) -> Option<String> {
    let ExternalChange { verb, object, numbers } = change;
    let at = format!("{} {}", table.family.as_str(), table.name);
    let word = verb.as_str();
    Some(match object {
        Object::Ruleset => format!("{word} ruleset"),
        Object::Table => match verb {
            Verb::Add | Verb::Create => {
                let options = ["", "{ flags dormant ; }", "{ comment \"x\" ; }"][numbers[0] % 3];
                format!("{word} table {at} {options}")
            }
            _ => format!("{word} table {at}"),
        },
        Object::Chain => chain(verb, numbers, table, &at)?,
        Object::Rule => rule(verb, numbers, table, handles, &at)?,
        Object::Set => set(verb, numbers, table, &at)?,
        Object::Element => element(verb, numbers, table, &at)?,
        Object::Flowtable => match verb {
            Verb::Add | Verb::Create => {
                let devices = ["", "devices = { lo } ;"][numbers[0] % 2];
                format!("{word} flowtable {at} {NAME} {{ hook ingress priority 0 ; {devices} }}")
            }
            _ => format!(
                "add flowtable {at} {NAME} {{ hook ingress priority 0 ; }}\n{word} flowtable {at} {NAME}"
            ),
        },
        Object::Counter => {
            match (verb, table.counters.keys().nth(numbers[0] % table.counters.len().max(1))) {
                (Verb::Add | Verb::Create, _) => format!("{word} counter {at} {NAME}"),
                (_, Some(own)) => format!("{word} counter {at} {own}"),
                (_, None) => return None,
            }
        }
        Object::Quota => named("quota", "over 10 mbytes", verb, &at),
        Object::Limit => named("limit", "rate 3/second", verb, &at),
        Object::CtHelper => named("ct helper", "{ type \"ftp\" protocol tcp ; }", verb, &at),
        Object::CtTimeout => {
            named("ct timeout", "{ protocol tcp ; policy = { established : 60 } ; }", verb, &at)
        }
        Object::CtExpectation => {
            named("ct expectation", "{ protocol tcp ; dport 9 ; timeout 9000 ; size 9 ; }", verb, &at)
        }
        Object::Synproxy => named("synproxy", "{ mss 1460 ; wscale 7 ; timestamp sack-perm ; }", verb, &at),
    })
}

fn named(kind: &str, body: &str, verb: Verb, at: &str) -> String {
    let add = format!("add {kind} {at} {NAME} {body}");
    match verb {
        Verb::Add | Verb::Create => add,
        _ => format!("{add}\n{} {kind} {at} {NAME}", verb.as_str()),
    }
}

fn chain(verb: Verb, numbers: [usize; 3], table: &Table, at: &str) -> Option<String> {
    let [number, of, _] = numbers;
    let word = verb.as_str();
    let (own, content) = table.chains.iter().nth(of % table.chains.len().max(1))?;
    Some(match verb {
        Verb::Add | Verb::Create => {
            let hook = ["prerouting", "input", "forward", "output", "postrouting"][number % 5];
            let body = match number % 4 {
                0 => String::new(),
                1 => "{ comment \"x\" ; }".to_owned(),
                2 => format!("{{ type filter hook {hook} priority {} ; policy drop ; }}", number % 9),
                _ => format!("{{ type nat hook {hook} priority -90 ; }}"),
            };
            let jump = ["", "\nadd rule AT foreign jump OWN", "\nadd rule AT OWN jump foreign"][of % 3];
            match (content.base, number % 6) {
                // One of ours gets another policy, or is deleted and gets another hook.
                (Some(_), 4) => format!("add chain {at} {own} {{ policy drop ; }}"),
                (_, 5) => {
                    format!("flush chain {at} {own}\ndelete chain {at} {own}\nadd chain {at} {own} {body}")
                }
                _ => format!("{word} chain {at} {NAME} {body}{}", jump.replace("AT", at).replace("OWN", own)),
            }
        }
        Verb::Rename => format!("rename chain {at} {own} {NAME}"),
        Verb::Delete | Verb::Destroy if number % 2 == 0 => {
            format!("flush table {at}\n{word} chain {at} {own}")
        }
        _ => format!("{word} chain {at} {own}"),
    })
}

fn rule(
    verb: Verb,
    numbers: [usize; 3],
    table: &Table,
    handles: &[(String, Vec<u64>)],
    at: &str,
) -> Option<String> {
    let word = verb.as_str();
    let (chain, rules) = handles.get(numbers[1] % handles.len().max(1))?;
    let handle = || rules.get(numbers[2] % rules.len().max(1));
    Some(match verb {
        Verb::Add | Verb::Create | Verb::Insert => {
            format!("{word} rule {at} {chain} {}", rule_body(table, numbers))
        }
        Verb::Replace => {
            format!("replace rule {at} {chain} handle {} {}", handle()?, rule_body(table, numbers))
        }
        Verb::Delete | Verb::Destroy => format!("{word} rule {at} {chain} handle {}", handle()?),
        _ => format!("{word} rules {at}"),
    })
}

fn set(verb: Verb, numbers: [usize; 3], table: &Table, at: &str) -> Option<String> {
    let [number, of, _] = numbers;
    let word = verb.as_str();
    let (own, content) = table.sets.iter().nth(of % table.sets.len().max(1))?;
    let kind = if content.spec.is_map() { "map" } else { "set" };
    let chain = table.chains.keys().nth(of % table.chains.len().max(1))?;
    Some(match verb {
        Verb::Add | Verb::Create => match number % 8 {
            0 => format!("{word} set {at} {NAME} {{ type ipv4_addr ; }}"),
            1 => format!("{word} set {at} {NAME} {{ type ipv4_addr . ether_addr ; flags timeout ; }}"),
            2 => format!("{word} set {at} {NAME} {{ type ipv4_addr ; flags dynamic ; counter ; size 9 ; }}"),
            3 => format!(
                "{word} map {at} {NAME} {{ type inet_service : verdict ; elements = {{ 9 : jump {chain} }} ; }}"
            ),
            4 => format!(
                "add counter {at} {NAME}\n{word} map {at} {NAME} {{ type inet_service : counter ; elements = {{ 9 : \"{NAME}\" }} ; }}"
            ),
            5 => format!(
                "{word} set {at} {NAME} {{ type inet_service ; flags interval ; auto-merge ; elements = {{ 1-9 }} ; }}"
            ),
            // A set of another type has the name of ours.
            6 => format!(
                "flush table {at}\ndelete {kind} {at} {own}\nadd set {at} {own} {{ type ether_addr ; }}"
            ),
            _ => format!(
                "flush table {at}\ndelete {kind} {at} {own}\nadd map {at} {own} {{ type mark : inet_service ; flags timeout ; }}"
            ),
        },
        Verb::Delete | Verb::Destroy if number % 2 == 0 => {
            format!("flush table {at}\n{word} {kind} {at} {own}")
        }
        _ => format!("{word} {kind} {at} {own}"),
    })
}

fn element(verb: Verb, numbers: [usize; 3], table: &Table, at: &str) -> Option<String> {
    let [number, of, which] = numbers;
    let word = verb.as_str();
    let filled: Vec<(&std::sync::Arc<str>, &Set)> =
        table.sets.iter().filter(|(_, set)| !set.elements.is_empty() || number % 2 == 0).collect();
    let (own, set) = filled.get(of % filled.len().max(1))?;
    let line = |n: usize| {
        let mut lines: Vec<String> =
            set.elements.iter().map(|(key, element)| set.line(&key, &element).to_string()).collect();
        lines.sort();
        let count = lines.len().max(1);
        (!lines.is_empty()).then(|| lines.swap_remove(n % count))
    };
    let (key, data) = match line(which) {
        Some(line) => match line.split_once(" : ") {
            Some((key, data)) => (key.to_owned(), Some(data.to_owned())),
            None => (line, None),
        },
        None => ("*".to_owned(), set.spec.is_map().then(|| "drop".to_owned())),
    };
    let value = |data: &Option<String>| data.as_ref().map(|data| format!(" : {data}")).unwrap_or_default();
    // The data of another element.
    let other = line(which + 1).and_then(|line| line.split_once(" : ").map(|(_, data)| data.to_owned()));
    Some(match verb {
        Verb::Add | Verb::Create => match number % 6 {
            0 => format!("{word} element {at} {own} {{ *{} }}", value(&data)),
            1 => format!(
                "delete element {at} {own} {{ {key} }}\n{word} element {at} {own} {{ {key}{} }}",
                value(&other)
            ),
            2 => format!(
                "delete element {at} {own} {{ {key} }}\n{word} element {at} {own} {{ {key} comment \"x\"{} }}",
                value(&data)
            ),
            3 => format!(
                "delete element {at} {own} {{ {key} }}\n{word} element {at} {own} {{ {key} timeout 9m{} }}",
                value(&data)
            ),
            4 => format!(
                "delete element {at} {own} {{ {key} }}\n{word} element {at} {own} {{ {key} counter{} }}",
                value(&data)
            ),
            _ => {
                let address = match table.family {
                    TableFamily::Ip6 => format!("fd00::{:x}", which % 256),
                    _ => format!("10.1.2.{}", which % 256),
                };
                let rest = key.split_once(" . ").map(|(_, rest)| format!(" . {rest}")).unwrap_or_default();
                format!("{word} element {at} {own} {{ {address}{rest}{} }}", value(&data))
            }
        },
        _ => format!("{word} element {at} {own} {{ {key} }}"),
    })
}
