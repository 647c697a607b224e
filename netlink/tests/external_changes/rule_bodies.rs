//! Rules of another process.

use portcullis_netlink::nf_tables::{Table, TableFamily};

/// Statements that need no other object.
const STATEMENTS: [&str; 30] = [
    "accept",
    "drop",
    "return",
    "counter accept",
    "counter packets 7 bytes 9 comment \"x\"",
    "limit rate 3/second drop",
    "quota over 9 bytes drop",
    "log prefix \"x\" drop",
    "log group 9 accept",
    "tcp dport { 1, 2 } drop",
    "tcp dport { 1-5, 80 } counter",
    "tcp dport vmap { 1 : drop, 2 : accept }",
    "meta mark set 7",
    "meta nftrace set 1",
    "ct mark set 9",
    "ct state invalid drop",
    "ct state new,established accept",
    "jump { counter ; accept ; }",
    "goto { drop ; }",
    "jump { jump { counter ; } ; tcp dport 9 return ; }",
    "numgen random mod 2 0 drop",
    "fib daddr type local drop",
    "meta l4proto tcp reject",
    "queue num 7 bypass",
    "socket transparent 1 drop",
    "meta skuid 0 drop",
    "ct count over 1 drop",
    "tcp option maxseg size set 1000",
    "masquerade",
    "meta iifname \"lo\" meta oifname \"x*\" drop",
];

/// Returns a rule that may refer to objects of the table.
pub(super) fn rule_body(table: &Table, numbers: [usize; 3]) -> String {
    let [number, of, address] = numbers;
    let chain = table.chains.keys().nth(of % table.chains.len().max(1));
    let set = table.sets.iter().nth(of % table.sets.len().max(1));
    let address = match table.family {
        TableFamily::Ip6 => format!("ip6 saddr fd00::{:x}", address % 256),
        _ => format!("ip saddr 10.96.0.{}", address % 256),
    };
    let field = address.rsplit_once(' ').map_or("ip saddr", |(field, _)| field);
    match number % (STATEMENTS.len() + 6) {
        0 => format!("{address} drop"),
        1 => chain.map_or_else(|| "accept".to_owned(), |chain| format!("{address} jump {chain}")),
        2 => chain.map_or_else(|| "accept".to_owned(), |chain| format!("goto {chain}")),
        3 => chain.map_or_else(
            || "drop".to_owned(),
            |chain| format!("{} : jump {chain} }}", vmap(field, &address)),
        ),
        4 => set.map_or_else(|| "drop".to_owned(), |(set, _)| format!("{field} @{set} drop")),
        5 => set.map_or_else(
            || "drop".to_owned(),
            |(set, _)| format!("update @{set} {{ {field} timeout 9s }} accept"),
        ),
        number => STATEMENTS[number - 6].to_owned(),
    }
}

fn vmap(field: &str, address: &str) -> String {
    format!("{field} vmap {{ {}", address.trim_start_matches(field).trim())
}
