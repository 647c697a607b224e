//! Faults of the API server with the whole program: the kernel's rules stay, metrics count the failures, and changes are
//! followed again without help. Faults that end only by time limits of minutes are tested with the source alone, in
//! `tests/api_source/faults.rs`, with shorter limits.

use std::cell::Cell;
use std::sync::Mutex;
use std::time::Instant;

use crate::api_server::fault_proxy::FaultProxy;
use crate::cluster::{server, slice};
use crate::daemon::{METRICS, Node};
use crate::fault_table::{Origin, Row, rows};
use crate::http::get;
use crate::namespace;

/// Nodes at the same time.
const NODES: usize = 6;

fn rules() -> String {
    namespace::run("nft list ruleset")
}

fn failures() -> Option<f64> {
    let text = get(METRICS, "/metrics")?;
    let of_kinds = text
        .lines()
        .filter_map(|line| line.strip_prefix("portcullis_source_failures_total{")?.rsplit(' ').next());
    of_kinds.map(|value| value.parse::<f64>().ok()).sum()
}

fn break_and_repair(row: Row) {
    let name = row.name;
    let node = Node::new();
    let server = server("10.244.0.100");
    let proxy = FaultProxy::start("127.0.0.1", server.address());
    let mut daemon = node.start_following(&format!("http://{}", proxy.address()), &[]);
    daemon.wait_until("the Service is served", || rules().contains("10.244.0.100 . 8080"));
    daemon.wait_healthy();
    let before = Cell::new(0.0);
    daemon.wait_until("the metrics are there", || failures().map(|now| before.set(now)).is_some());
    let before = before.get();
    match row.fault {
        Origin::Server(fault) => server.fail(fault),
        Origin::Connection(fault) => proxy.set(Some(fault)),
    }
    server.disconnect_all();
    daemon.wait_until(&format!("{name}: failures are counted"), || {
        failures().is_some_and(|now| now >= before + 3.0)
    });
    server.apply(slice("10.244.0.101"));
    // A watch that was not interrupted yet may still deliver the change.
    let served = |rules: &str| ["100", "101"].map(|last| rules.contains(&format!("10.244.0.{last} . 8080")));
    assert_ne!(served(&rules()), [false, false], "{name}: no endpoint is served\n{}", daemon.log());

    server.clear_faults();
    proxy.set(None);
    let start = Instant::now();
    daemon.wait_until(&format!("{name}: the change is followed"), || {
        let has = served(&rules());
        assert_ne!(has, [false, false], "{name}: no endpoint is served");
        has == [false, true]
    });
    println!("{name:40} recovered in {:5} ms", start.elapsed().as_millis());
    daemon.wait_healthy();
}

#[test]
fn no_fault_of_the_api_server_removes_rules_or_needs_help() {
    let is_short = |row: &Row| {
        !row.error.contains("no data") && !row.name.contains("of a year") && !row.name.contains("interim")
    };
    let rows: Vec<Row> = rows().into_iter().filter(is_short).collect();
    assert!(rows.len() >= 40, "{}", rows.len());
    let waiting = Mutex::new(rows);
    std::thread::scope(|scope| {
        for _ in 0..NODES {
            scope.spawn(|| {
                loop {
                    let Some(row) = waiting.lock().unwrap().pop() else { return };
                    namespace::inside(move || break_and_repair(row));
                }
            });
        }
    });
}
