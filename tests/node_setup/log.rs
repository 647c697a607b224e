//! Tests of the daemon with a standard error that cannot be written.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::cluster::{rules, server, slice};
use crate::daemon::{Daemon, HEALTH, METRICS, Node, PATIENCE, program};
use crate::http::get;
use crate::namespace;

/// Returns a full pipe.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    // A pipe holds 64 KiB; the next byte would block.
    filler.write_all(&vec![b'.'; 64 << 10]).unwrap();
    (reader, writer)
}

fn is_healthy() -> bool {
    ["/healthz", "/livez"].iter().all(|path| get(HEALTH, path).is_some_and(|answer| answer.contains(" 200 ")))
}

#[test]
fn a_log_that_cannot_be_written_does_not_stop_the_daemon() {
    for (case, format) in [
        ("full disk", "text"),
        ("full disk", "json"),
        ("no reader", "text"),
        ("full pipe", "text"),
        ("closed", "text"),
    ] {
        namespace::inside(move || {
            let _node = Node::new();
            let server = server("10.244.0.9");
            let mut command = program();
            command.args([
                "--mode=iptables",
                "--master",
                &server.url(),
                "--iptables-min-sync-period=0s",
                "-v=4",
            ]);
            command.arg(format!("--logging-format={format}"));
            let mut unread = None;
            let stderr: Stdio = match case {
                "full disk" => OpenOptions::new().write(true).open("/dev/full").unwrap().into(),
                "no reader" => std::io::pipe().unwrap().1.into(),
                "full pipe" => {
                    let (reader, writer) = full_pipe();
                    unread = Some(reader);
                    writer.into()
                }
                _ => {
                    let mut shell = Command::new("sh");
                    shell
                        .args(["-c", "exec \"$0\" \"$@\" 2>&-"])
                        .arg(command.get_program())
                        .args(command.get_args());
                    command = shell;
                    Stdio::null()
                }
            };
            let mut daemon = Daemon::spawn(command, stderr, PathBuf::new());
            for endpoint in ["10.244.0.9", "10.244.0.10", "10.244.0.11"] {
                server.apply(slice(endpoint));
                daemon.wait_until(&format!("{case}: {endpoint} serves"), || {
                    rules().contains(&format!("{endpoint}:8080"))
                });
            }
            daemon.wait_until(&format!("{case}: it is healthy"), is_healthy);
            if case != "full pipe" && case != "closed" {
                let health = || get(HEALTH, "/healthz").unwrap_or_default();
                daemon.wait_until(&format!("{case}: health lists it"), || health().contains("log: "));
                let metrics = get(METRICS, "/metrics").unwrap();
                let dropped =
                    metrics.lines().find_map(|l| l.strip_prefix("portcullis_log_lines_dropped_total "));
                assert!(dropped.unwrap().parse::<f64>().unwrap() > 5.0, "{case}: {dropped:?}");
            }
            assert!(daemon.is_running());
            let begun = std::time::Instant::now();
            Command::new("kill").arg(daemon.pid().to_string()).status().unwrap();
            assert_eq!(daemon.wait_for_exit().code(), Some(0), "{case}");
            assert!(begun.elapsed() < PATIENCE / 2, "{case}: it took {:?} to end", begun.elapsed());
            drop(unread);
        });
    }
}

#[test]
fn all_log_lines_are_written_before_exit() {
    namespace::inside(|| {
        let node = Node::new();
        let mut daemon = node.start(&["--once"]);
        daemon.wait_for_exit();
        assert!(
            daemon.log().trim_end().lines().last().unwrap().contains("all rules are written"),
            "{}",
            daemon.log()
        );
    });
}
