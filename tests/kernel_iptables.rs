//! Tests of iptables mode with a real kernel: every recorded state and sequence is programmed with both flavours of the
//! tool and read back. Each case has a network namespace of its own.

#[path = "../netlink/tests/namespace/mod.rs"]
mod namespace;
mod services;

use std::process::Command;
use std::sync::Mutex;

use libtest_mimic::{Arguments, Trial};
use portcullis::config::ProxyMode;
use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Family, Index};
use portcullis_modes::Mode;
use portcullis_modes::iptables::{
    Flavour, IptablesProxier, NFACCT_INVALID_DROPPED, NFACCT_LOCALHOST_NODE_PORTS, Tools,
};
use portcullis_netlink::nfacct::Counters;
use services::{Case, assert_same, bring, case_names, normalised};

/// Cases of one process with the legacy tool, which has a lock for the whole machine.
static LEGACY: Mutex<()> = Mutex::new(());

/// One test for each case and flavour of the tool.
fn main() {
    let lock = tempfile::NamedTempFile::new().expect("a temporary file");
    // Each process has a lock file of its own, as each case has a network namespace of its own.
    // SAFETY: there is no other thread yet.
    unsafe { std::env::set_var("XTABLES_LOCKFILE", lock.path()) };
    let flavours = [(Flavour::Nft, "nft"), (Flavour::Legacy, "legacy")];
    let trials = flavours.into_iter().flat_map(|(flavour, label)| {
        case_names(ProxyMode::Iptables).into_iter().map(move |name| {
            let test = format!("kernel_holds_the_rules_of_kube_proxy_with_the_{label}_tool::{name}");
            Trial::test(test, move || {
                let case = Case::named(&name, ProxyMode::Iptables);
                let alone = (flavour == Flavour::Legacy).then(|| LEGACY.lock());
                namespace::inside(|| follow(&case, flavour));
                drop(alone);
                Ok(())
            })
        })
    });
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials.collect());
    drop(lock);
    conclusion.exit();
}

/// Programs the states of a case with one proxier, as a daemon does.
fn follow(case: &Case, flavour: Flavour) {
    let mut counters = Counters::open().expect("netlink");
    for name in [NFACCT_INVALID_DROPPED, NFACCT_LOCALHOST_NODE_PORTS] {
        counters.ensure(name).expect("the kernel has nfacct");
    }
    for command in &case.host.commands {
        run(&command.replacen("iptables", &tool(Family::V4, flavour, ""), 1));
    }
    let tools = Tools::of_flavour(flavour).expect("iptables is installed in both flavours");
    let mut index = Index::new();
    let mut desired = Desired::new(case.node());
    let mut proxier: Option<IptablesProxier> = None;
    for (i, state) in case.states().iter().enumerate() {
        let what = format!("{} step {} {flavour:?}", case.name, i + 1);
        let dirty = bring(&mut index, state);
        let (options, host) = case.facts(&index);
        let changes = desired.update(&index, dirty);
        let proxier = proxier.get_or_insert_with(|| {
            IptablesProxier::new(options, host, Family::BOTH.map(|family| (family, tools.kernel(family))))
        });
        let results = proxier.sync(&desired, &changes);
        for result in &results {
            assert!(result.error.is_none() && result.isolated.is_empty(), "{what}: {result:?}");
            assert_eq!(result.is_full, i == 0, "{what}: only the first sync reads the kernel: {result:?}");
        }
        for family in Family::BOTH {
            let found = normalised(&dump(family, flavour));
            let result = results.iter().find(|result| result.family == family).expect("one per family");
            for table in &result.tables {
                let held = rules_of(&found, table.table);
                assert_eq!(table.in_kernel, held, "{what} {family}: rules counted in {}", table.table);
            }
            assert_same(&format!("{what} {family}"), &case.recorded_rules(i + 1, family), &found);
        }
    }
    unchanged_after_restart(case, flavour, &desired, &index);
}

/// A new process finds the rules unchanged, and writes nothing.
fn unchanged_after_restart(case: &Case, flavour: Flavour, desired: &Desired, index: &Index) {
    let tools = Tools::of_flavour(flavour).expect("iptables is installed in both flavours");
    let (options, host) = case.facts(index);
    let kernels = Family::BOTH.map(|family| (family, tools.kernel(family)));
    for result in IptablesProxier::new(options, host, kernels).sync(desired, &[]) {
        assert_eq!((result.written, result.restored), (0, 0), "{} {flavour:?}: {result:?}", case.name);
    }
}

/// Returns the number of rules in our chains of a table in a dump.
fn rules_of(dump: &str, table: &str) -> usize {
    let lines = dump.lines().skip_while(|line| line.strip_prefix('*') != Some(table)).skip(1);
    lines.take_while(|line| !line.starts_with('*')).filter(|line| line.starts_with("-A KUBE-")).count()
}

fn tool(family: Family, flavour: Flavour, action: &str) -> String {
    let base = if family == Family::V4 { "iptables" } else { "ip6tables" };
    let infix = if flavour == Flavour::Nft { "nft" } else { "legacy" };
    format!("{base}-{infix}{action}")
}

fn dump(family: Family, flavour: Flavour) -> String {
    let output = Command::new(tool(family, flavour, "-save")).output().expect("the tool runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("rules are text")
}

fn run(command: &str) {
    let mut words = command.split(' ');
    let program = words.next().expect("a command");
    let status = Command::new(program).args(words).status().expect("it runs");
    assert!(status.success(), "{command}: {status}");
}
