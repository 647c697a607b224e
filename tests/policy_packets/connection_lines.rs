//! Expected connections as lines of text: `x/a → y/b 80/tcp allow`.

use std::thread;
use std::time::{Duration, Instant};

use portcullis_lab::{Families, Lab, MatrixOptions, MatrixPeer};

use crate::case::port;
use crate::flows::end;
use crate::test_cluster::{PATIENCE, TestCluster};
use crate::truth_tables::wait;

impl TestCluster {
    /// Checks that each line's connection has the expected result in both families. `when` is for the failure.
    pub(crate) fn check(&self, when: &str, lines: &str) {
        let wrong = wrong(&self.lab, lines);
        assert!(wrong.is_empty(), "{when}:\n{}", wrong.join("\n"));
    }

    /// Waits until each line's connection has the expected result.
    pub(crate) fn wait_for(&self, when: &str, lines: &str) {
        let start = Instant::now();
        loop {
            let wrong = wrong(&self.lab, lines);
            if wrong.is_empty() {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{when}:\n{}", wrong.join("\n"));
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Returns the lines with unexpected results.
fn wrong(lab: &Lab, lines: &str) -> Vec<String> {
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    thread::scope(|scope| {
        let probes: Vec<_> = lines.map(|line| scope.spawn(move || probe(lab, line))).collect();
        probes.into_iter().flat_map(|line| line.join().unwrap()).collect()
    })
}

fn probe(lab: &Lab, line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [from, "→", to, at, verdict] = words[..] else { panic!("invalid line: {line:?}") };
    let allowed = match verdict {
        "allow" => true,
        "deny" => false,
        other => panic!("{other:?} is neither allow nor deny"),
    };
    let at = port(at).unwrap_or_else(|| panic!("{line:?} cannot be probed"));
    let [from, to]: [MatrixPeer; 2] = [from, to].map(|text| end(lab.plan(), text));
    let options = MatrixOptions { timeout: wait(), ..MatrixOptions::new(vec![from], vec![to], [at]) };
    let matrix = lab.matrix(&options.families(Families::Dual), |_| Some(allowed)).unwrap();
    let seen = matrix.unexpected();
    seen.into_iter().map(|(question, cell)| format!("{line}: {question}: {:?}", cell.outcome)).collect()
}
