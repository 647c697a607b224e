//! The binary as a replacement for kube-proxy: with kube-proxy's configuration file, an API server over HTTP, and a node's
//! interfaces. Kernel objects and health check responses are compared with the recordings of kube-proxy.
//!
//! ```text
//! case ─ node (interfaces) ─ API server ─ state 1, 2, … ─ daemon ─ the kernel has the recorded objects
//! ```
//! Each case has a test and a network namespace. IPVS mode runs in user-mode Linux, as the kernel of the machine may lack it,
//! with one machine for a group of cases.

#[path = "../api_server/mod.rs"]
mod api_server;
#[path = "../../netlink/tests/namespace/mod.rs"]
mod namespace;
#[path = "../services/mod.rs"]
mod services;

mod daemon;
mod follow;
mod health_checks;
mod http;
mod node;
mod states;

mod iptables;
mod ipvs;
mod killed;
mod killed_by_nftables;
mod migrations;
mod mode_changes;
mod nftables;
mod recorded_objects;
mod schedulers;

use std::panic::resume_unwind;
use std::thread;

use libtest_mimic::{Arguments, Trial};

/// Returns tests that are functions of a module.
macro_rules! tests {
    ($($module:ident::$name:ident,)+) => {
        vec![$(test(concat!(stringify!($module), "::", stringify!($name)), $module::$name)),+]
    };
}

fn main() {
    let mut trials = tests![
        killed::a_daemon_killed_during_a_sync_is_followed_by_one_that_completes_it,
        killed_by_nftables::a_daemon_killed_at_any_time_leaves_a_complete_table,
        migrations::from_kube_proxys_iptables_to_ipvs,
        migrations::from_kube_proxys_iptables_to_nftables,
        migrations::from_kube_proxys_ipvs_to_iptables,
        migrations::from_kube_proxys_nftables_to_iptables,
        mode_changes::from_kube_proxys_iptables_to_ipvs_and_back_and_again,
        mode_changes::from_kube_proxys_iptables_to_nftables_and_back,
        schedulers::every_scheduler_can_be_selected_by_annotation,
    ];
    trials.extend(iptables::trials());
    trials.extend(nftables::trials());
    trials.extend(ipvs::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Returns a test that runs on a thread with its name, which tests in user-mode Linux need.
fn test(name: impl Into<String>, run: impl FnOnce() + Send + 'static) -> Trial {
    let name = name.into();
    Trial::test(name.clone(), move || {
        let thread = thread::Builder::new().name(name).spawn(run).expect("a thread can be started");
        thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok(())
    })
}
