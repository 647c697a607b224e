//! A model test of the whole daemon: random clusters and random changes, against a model of who must reach whom.
//!
//! ```text
//! seed ─ generator ─ Scenario ─ steps ─┬─► API server ─► daemon ─► kernel ─► rules, read back ─ tracer ─┐
//!                       ▲              │                              └──── packets of the lab ─────────┤ equal?
//!  fixtures/chaos ──────┘              └─► ModelCluster ─ services (own model), policies (reference) ───┘
//! ```
//! At each quiet moment a sample of connections is checked. In between, pods that never change connect to a Service that
//! never changes, and to a pod that is closed to them, and the health endpoints are read.
//!
//! `make chaos SECONDS=600` runs random scenarios for ten minutes; `CHAOS_SEED=17` begins with that seed. A scenario that
//! fails is reduced, and written to `target/chaos`; copy its file to `fixtures/chaos`, where every file is a test.
//! `CHAOS_PROGRAM` is the path of another build of the program.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod affinity;
#[path = "../api_server/mod.rs"]
mod api_server;
mod check;
mod cluster;
mod connections;
mod foreign;
mod generator;
mod health;
#[path = "../drop_in/http.rs"]
mod http;
mod invalid;
mod model;
#[path = "../../policy/tests/naive/mod.rs"]
mod naive;
mod node;
mod objects;
mod policies;
mod pools;
mod quiet;
mod random;
mod random_run;
mod rules;
mod rules_names;
mod runner;
mod scenario;
mod services;
mod shrink;
mod soak;
mod step;
mod traffic;
mod violation;

use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use portcullis_machines::uml;

use generator::Kernel;
use scenario::Scenario;
use step::Mode;

/// Tests of the test's own parts.
const SELF_TESTS: [(&str, fn()); 7] = [
    ("generator::scenarios_cover_the_model", generator::tests::scenarios_cover_the_model),
    ("shrink::only_the_steps_that_matter_remain", shrink::tests::only_the_steps_that_matter_remain),
    ("invalid::objects_cannot_be_read", invalid::tests::invalid_objects_cannot_be_read),
    ("health::failures_need_a_reason", health::tests::failures_need_a_reason),
    ("iptables::rules_are_walked", rules::iptables::tests::rules_are_walked_from_the_built_in_chains),
    ("ipvs::terminating_real_servers", rules::ipvs::tests::terminating_real_servers_do_not_count),
    ("soak::quarters_compare_the_ends", soak::resources::tests::quarters_compare_the_ends),
];

fn main() {
    let mut trials: Vec<Trial> = SELF_TESTS.into_iter().map(|(name, test)| self_test(name, test)).collect();
    trials.extend([
        Trial::test("soak::nftables", || soak::run(Mode::Nftables)),
        Trial::test("soak::iptables", || soak::run(Mode::Iptables)),
        Trial::test("soak::ipvs", || soak::run(Mode::Ipvs)),
        Trial::test("random::with_nf_tables", || random_run::run(Kernel::NfTables)),
        Trial::test("random::with_ipvs", || random_run::run(Kernel::Ipvs)),
    ]);
    trials.extend(rows().into_iter().map(|path| {
        let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
        Trial::test(format!("rows::{name}"), move || replay(&path))
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn self_test(name: &'static str, test: fn()) -> Trial {
    Trial::test(format!("self_test::{name}"), move || {
        test();
        Ok(())
    })
}

/// Returns the scenarios that have failed once.
fn rows() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/chaos");
    let entries = std::fs::read_dir(folder).expect("the fixtures are there");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    paths.sort();
    paths
}

fn replay(path: &Path) -> Result<(), Failed> {
    let scenario = Scenario::read(path);
    if scenario.needs_ipvs() && !uml::is_inside() {
        let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
        return random_run::inside_uml(&format!("rows::{name}"));
    }
    let counts = runner::run(&scenario, runner::LIMIT).map_err(|failure| {
        Failed::from(format!(
            "{}\nstep {}: {}\n{}",
            scenario.note,
            failure.step + 1,
            failure.violation,
            failure.log
        ))
    })?;
    println!("{counts:?}");
    Ok(())
}
