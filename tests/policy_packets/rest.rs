//! When a daemon has come to rest.
//!
//! Services are followed by the daemon's own word. Of policy the only word is what the kernel holds: at rest is a node
//! whose rules are what they were a while ago.

use std::thread;
use std::time::{Duration, Instant};

use portcullis_lab::{Lab, Vantage};

use crate::town::PATIENCE;

/// How long rules must stay as they are; a folder of manifests is read 100 ms after its last change.
const QUIET: Duration = Duration::from_millis(400);

/// Waits until every daemon has followed the last change of Services, and no rule changes any more.
pub(crate) fn wait_for_rest(lab: &mut Lab) {
    let until = Instant::now() + PATIENCE;
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

/// What the nodes' kernels hold, without counters.
fn rules(lab: &Lab) -> Vec<Vec<u8>> {
    let nodes = lab.plan().nodes.iter();
    let list = nodes.map(|node| {
        let netns = lab.netns(&Vantage::node(&node.name)).unwrap();
        netns.command("nft").args(["--stateless", "list", "ruleset"]).output().unwrap().stdout
    });
    list.collect()
}
