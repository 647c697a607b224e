//! Waiting until the daemons have settled.
//!
//! The daemons report when they have read the last change, and whether changes wait for a sync. One sync may follow another, so a node
//! has settled if its rules have not changed for a while either.

use std::fs;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use portcullis_lab::{Lab, Vantage};

use crate::test_cluster::PATIENCE;
use crate::tools;

/// Time without a change of rules; a folder of manifests is read 100 ms after its last change.
const QUIET: Duration = Duration::from_millis(400);

/// Waits until every daemon has synced the last change and the rules no longer change.
pub(crate) fn wait_until_settled(lab: &mut Lab) {
    let until = Instant::now() + PATIENCE;
    for node in running(lab) {
        while !has_read_all(lab, node) {
            assert!(Instant::now() < until, "{node} does not read its manifests within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
    lab.wait_synced(PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    let mut since = Instant::now();
    let mut before = rules(lab);
    while since.elapsed() < QUIET {
        assert!(Instant::now() < until, "the rules still change after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
        let is_pending = running(lab).any(|node| has_pending_changes(lab, node));
        let now = rules(lab);
        if now != before || is_pending {
            (before, since) = (now, Instant::now());
        }
    }
}

/// Returns the nodes whose daemon is running.
fn running(lab: &Lab) -> impl Iterator<Item = &str> {
    lab.plan().nodes.iter().map(|node| node.name.as_str()).filter(|node| lab.daemon_pid(node).is_some())
}

/// Returns a daemon's metrics; `None` if it does not respond, as it may have just started.
fn metrics(lab: &Lab, node: &str) -> Option<String> {
    tools::http_get(&lab.netns(&Vantage::node(node)).unwrap(), "127.0.0.1:10249", "/metrics").ok()
}

/// Returns true unless all changes that a daemon has read are in the kernel. A daemon that enforces no policies has Services only.
fn has_pending_changes(lab: &Lab, node: &str) -> bool {
    let metrics = metrics(lab, node).unwrap_or_default();
    let oldest = "portcullis_controller_oldest_change_timestamp_seconds{";
    let mut oldest = metrics.lines().filter(|line| line.starts_with(oldest)).peekable();
    oldest.peek().is_none() || oldest.any(|line| !line.ends_with(" 0"))
}

/// Returns true if a daemon has read the manifests since they were last written.
fn has_read_all(lab: &Lab, node: &str) -> bool {
    let files = fs::read_dir(lab.manifests()).unwrap().map(|file| file.unwrap().metadata().unwrap());
    let written = files.map(|file| file.modified().unwrap()).max().unwrap();
    // The ages in the response are at least those at this time.
    let since = SystemTime::now().duration_since(written).unwrap_or_default().as_secs_f64();
    let Some(metrics) = metrics(lab, node) else { return false };
    let age = "portcullis_source_last_heard_age_seconds{kind=\"NetworkPolicy\"} ";
    let age = metrics.lines().find_map(|line| line.strip_prefix(age)?.parse::<f64>().ok());
    age.is_some_and(|age| age < since)
}

/// Returns the rule sets of all nodes without counters.
fn rules(lab: &Lab) -> Vec<Vec<u8>> {
    let nodes = lab.plan().nodes.iter();
    let list = nodes.map(|node| {
        let netns = lab.netns(&Vantage::node(&node.name)).unwrap();
        netns.command("nft").args(["--stateless", "list", "ruleset"]).output().unwrap().stdout
    });
    list.collect()
}
