//! Panic hook that exits the process.

use std::panic::{self, PanicHookInfo};
use std::process;
use std::thread;

use super::final_message;

/// Exit status of a Rust program that panics.
const PANICKED: i32 = 101;

/// Installs a panic hook that exits the process with a message, even if standard error cannot be written. Otherwise only
/// the panicking task would end, and the daemon would look healthy but never sync again. A supervisor restarts the
/// process; the rules in the kernel stay meanwhile.
pub fn exit_on_panic() {
    panic::set_hook(Box::new(|panic| {
        final_message(&message(panic));
        process::exit(PANICKED);
    }));
}

fn message(panic: &PanicHookInfo<'_>) -> String {
    let payload = panic.payload_as_str().unwrap_or("no message");
    let thread = thread::current();
    let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
    let mut message = format!(
        "portcullis: panic in thread {:?}{place}: {payload}; exiting",
        thread.name().unwrap_or("unnamed")
    );
    let backtrace = std::backtrace::Backtrace::capture();
    if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
        message.push_str(&format!("\n{backtrace}"));
    }
    message
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Read;
    use std::process::{Command, ExitStatus, Stdio};
    use std::time::{Duration, Instant};

    use super::super::{Delivery, start};
    use super::*;
    use crate::config::Config;

    /// Environment variable of the child process: where it panics, and how it logs.
    const PANIC_IN: &str = "PORTCULLIS_TEST_PANIC_IN";

    /// Panics as requested by the environment; without the variable, does nothing.
    #[test]
    fn child() {
        let Ok(place) = std::env::var(PANIC_IN) else { return };
        let delivery = if place.starts_with("command") { Delivery::Direct } else { Delivery::Queued };
        start(Config::default().logging, delivery);
        exit_on_panic();
        // More than a pipe without reader holds.
        if place.ends_with("stuck") {
            (0..2_000).for_each(|_| tracing::error!("{}", "x".repeat(1_000)));
        }
        let broken = || panic!("broken on purpose");
        if place.contains("task") {
            let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
            drop(runtime.block_on(async { tokio::spawn(async move { broken() }).await }));
        } else {
            drop(thread::spawn(broken).join());
        }
        process::exit(0);
    }

    fn run_child(place: &str, stderr: Stdio) -> (ExitStatus, String) {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command.args(["--exact", "--nocapture", "logging::panics::tests::child"]).env(PANIC_IN, place);
        command.env_remove("RUST_BACKTRACE").env_remove("RUST_LOG");
        let mut child = command.stdout(Stdio::null()).stderr(stderr).spawn().expect("it starts");
        let until = Instant::now() + Duration::from_secs(60);
        let status = loop {
            if let Some(status) = child.try_wait().expect("it is our child") {
                break status;
            }
            assert!(Instant::now() < until, "{place}: still running after a panic");
            thread::sleep(Duration::from_millis(20));
        };
        let mut output = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut output).expect("it is text");
        }
        (status, output)
    }

    #[test]
    fn a_panic_exits_the_process_with_a_message() {
        let full = || OpenOptions::new().write(true).open("/dev/full").expect("/dev/full").into();
        let unread = || {
            let (_, writer) = std::io::pipe().expect("a pipe");
            writer.into()
        };
        type Row<'a> = (&'a str, Stdio, bool);
        let rows: [Row<'_>; 7] = [
            ("a thread", Stdio::piped(), true),
            ("a task", Stdio::piped(), true),
            ("command: a thread", Stdio::piped(), true),
            ("a task, full", full(), false),
            ("a task, unread", unread(), false),
            ("command: a thread, full", full(), false),
            ("a task, stuck", Stdio::piped(), false),
        ];
        for (place, stderr, is_readable) in rows {
            let (status, output) = run_child(place, stderr);
            assert_eq!(status.code(), Some(PANICKED), "{place}: {output}");
            if is_readable {
                let expected = ["portcullis: panic in thread", "panics.rs", "broken on purpose; exiting"];
                assert!(expected.iter().all(|words| output.contains(words)), "{place}: {output}");
            }
        }
    }
}
