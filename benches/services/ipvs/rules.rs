//! The iptables rules of IPVS mode, written by the bare tool.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::figures::Spent;
use crate::process;

const TABLES: [&str; 2] = ["filter", "nat"];

/// The prefix of `-save` and `-restore`, by family.
const TOOLS: [&str; 2] = ["iptables", "ip6tables"];

/// The rules of both families, each as the input of one restore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules([String; TOOLS.len()]);

impl Rules {
    /// Reads those of the network namespace of this thread, without counters and comments.
    pub(crate) fn read() -> Rules {
        Rules(TOOLS.map(|tool| TABLES.map(|table| dump(tool, table)).concat()))
    }

    /// Restores them in the network namespace of this thread, one family at a time.
    pub(crate) fn restore(&self) -> Spent {
        let start = Instant::now();
        let mut spent = Spent::default();
        for (tool, text) in TOOLS.iter().zip(&self.0) {
            let mut command = Command::new(format!("{tool}-restore"));
            command.args(["-w", "5", "--noflush"]).stdin(Stdio::piped()).stdout(Stdio::null());
            let mut child = command.spawn().expect("the tool was found");
            let mut stdin = child.stdin.take().expect("it is piped");
            stdin.write_all(text.as_bytes()).expect("it reads to the end");
            drop(stdin);
            let (status, processor) = process::wait(&mut child);
            assert!(status.success(), "{tool} rejected its own rules: {status}");
            spent.processor += processor;
        }
        spent.wall = start.elapsed();
        spent
    }
}

fn dump(tool: &str, table: &str) -> String {
    let mut command = Command::new(format!("{tool}-save"));
    let output = command.args(["-t", table]).stdin(Stdio::null()).output().expect("the tool was found");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("rules are text");
    let plain = text.lines().filter(|line| !line.starts_with('#')).flat_map(|line| {
        match line.split_once('[').filter(|_| line.starts_with(':')) {
            Some((chain, _)) => [chain, "[0:0]\n"],
            None => [line, "\n"],
        }
    });
    plain.collect()
}
