//! When a daemon has come to rest.
//!
//! That it has read the last change it says itself, and that it serves Services as they are then. Of policy the only word
//! is what the kernel holds: at rest is a node whose rules are what they were a while ago.

use std::fs;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use portcullis_lab::{Lab, Vantage};

use crate::tools;
use crate::town::PATIENCE;

/// How long rules must stay as they are; a folder of manifests is read 100 ms after its last change.
const QUIET: Duration = Duration::from_millis(400);

/// Waits until every daemon has followed the last change of Services, and no rule changes any more.
pub(crate) fn wait_for_rest(lab: &mut Lab) {
    let until = Instant::now() + PATIENCE;
    for node in lab.plan().nodes.iter().filter(|node| lab.daemon_pid(&node.name).is_some()) {
        while !has_read_all(lab, &node.name) {
            assert!(Instant::now() < until, "{} does not read its manifests within {PATIENCE:?}", node.name);
            thread::sleep(Duration::from_millis(20));
        }
    }
    lab.wait_synced(PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    let mut since = Instant::now();
    let mut before = rules(lab);
    while since.elapsed() < QUIET {
        assert!(Instant::now() < until, "the rules do not come to rest within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
        let now = rules(lab);
        if now != before {
            (before, since) = (now, Instant::now());
        }
    }
}

/// Whether a daemon has read the manifests since they were written last.
fn has_read_all(lab: &Lab, node: &str) -> bool {
    let files = fs::read_dir(lab.manifests()).unwrap().map(|file| file.unwrap().metadata().unwrap());
    let written = files.map(|file| file.modified().unwrap()).max().unwrap();
    let netns = lab.netns(&Vantage::node(node)).unwrap();
    // One that has just been started does not answer yet.
    let Ok(metrics) = tools::http_get(&netns, "127.0.0.1:10249", "/metrics") else { return false };
    let age = "portcullis_source_last_heard_age_seconds{kind=\"NetworkPolicy\"} ";
    let age = metrics.lines().find_map(|line| line.strip_prefix(age)?.parse::<f64>().ok());
    let since = SystemTime::now().duration_since(written).unwrap_or_default().as_secs_f64();
    age.is_some_and(|age| age < since)
}

/// What the nodes' kernels hold, without counters.
fn rules(lab: &Lab) -> Vec<Vec<u8>> {
    let nodes = lab.plan().nodes.iter();
    let list = nodes.map(|node| {
        let netns = lab.netns(&Vantage::node(&node.name)).unwrap();
        netns.command("nft").args(["--stateless", "list", "ruleset"]).output().unwrap().stdout
    });
    list.collect()
}
