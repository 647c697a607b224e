//! Programs that end, fail, hang and print without end.

use std::fs;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::{ExternalProgram, ProgramEnd, ProgramError};

/// Returns a shell script as a program with this time limit in milliseconds.
fn shell(script: &str, limit: u64) -> ExternalProgram {
    ExternalProgram::new("sh").with_arguments(["-c", script]).with_time_limit(Duration::from_millis(limit))
}

/// A time limit that no program here reaches.
const LONG: u64 = 600_000;

/// Returns the exit code and the message, or the error without the program and the time for which it waited for a processor.
fn described(result: Result<ProgramEnd, ProgramError>) -> String {
    match result {
        Ok(end) => format!("{:?} {}", end.status.code(), end.message),
        Err(error) => {
            let text = error.to_string();
            let text = text.split_once(error.command.as_str()).expect("it names the program").1;
            match (text.split_once(", apart from "), text.split_once(" waited for a processor,")) {
                (Some((start, _)), Some((_, end))) => format!("{start}{end}"),
                _ => text.to_owned(),
            }
        }
    }
}

#[test]
fn ends_of_programs() {
    let rows = [
        ("exit 0", LONG, "Some(0) "),
        ("echo one >&2; echo two >&2; exit 3", LONG, "Some(3) one\ntwo"),
        ("printf 'b\\377d' >&2; exit 1", LONG, "Some(1) b\u{fffd}d"),
        ("echo why >&2; kill -9 $$", LONG, " was ended by signal 9: why"),
        ("sleep 1000", 200, " did not end within 0.2 s and was killed"),
        ("trap '' TERM INT HUP; sleep 1000; sleep 1000", 200, " did not end within 0.2 s and was killed"),
        ("sleep 1000 & wait", 200, " did not end within 0.2 s and was killed"),
        ("while :; do echo error >&2; done", 200, " did not end within 0.2 s and was killed"),
        ("exec <&- >&- 2>&-; sleep 1000", 200, " did not end within 0.2 s and was killed"),
        // Its child keeps its pipes.
        ("sleep 1000 & exit 4", LONG, "Some(4) "),
    ];
    for (script, limit, expected) in rows {
        let program = shell(script, limit);
        assert_eq!(described(program.output().map(|(end, _)| end)), expected, "output: {script}");
        assert_eq!(described(program.read_lines(&mut |_| ())), expected, "lines: {script}");
        let mut write = |out: &mut dyn std::io::Write| out.write_all(&[b'x'; 1 << 20]);
        let fed = described(program.feed(&mut write));
        // Bytes in its pipe prolong the limit; input that it does not read may be an error.
        let is_expected = match expected {
            "Some(0) " => fed == expected || fed.contains("Broken pipe"),
            _ if expected.contains("did not end") => fed.contains(" did not end within 0."),
            _ => fed == expected,
        };
        assert!(is_expected, "fed: {script}: {fed}");
    }
    let missing = ExternalProgram::new("no-such-program").output();
    assert_eq!(
        missing.expect_err("it is missing").to_string(),
        "cannot run no-such-program: No such file or directory (os error 2)"
    );
}

#[test]
fn variables_are_added_to_those_of_this_process() {
    let program = shell("echo $ADDED $HOME", LONG).with_environment([("ADDED", "a b")]);
    let (_, output) = program.output().expect("it ends");
    assert_eq!(output, format!("a b {}\n", std::env::var("HOME").unwrap_or_default()));
}

/// A process that keeps a processor busy until it is dropped.
struct Busy(Child);

impl Busy {
    fn new(cpu: &str) -> Self {
        Busy(
            Command::new("taskset")
                .args(["-c", cpu, "sh", "-c", "while :; do :; done"])
                .spawn()
                .expect("util-linux"),
        )
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("it runs until it is killed");
    }
}

/// Returns a processor on which this process may run.
fn processor() -> String {
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("a list");
    list.trim().chars().take_while(char::is_ascii_digit).collect()
}

#[test]
fn a_program_that_waits_for_a_processor_is_not_killed_and_one_that_sleeps_is() {
    let cpu = processor();
    let _busy = Busy::new(&cpu);
    // A tenth of the processor.
    let slowly = |script: &str, limit| {
        let script = format!("exec taskset -c {cpu} nice -n 10 sh -c '{script}'");
        let start = Instant::now();
        (described(shell(&script, limit).output().map(|(end, _)| end)), start.elapsed())
    };
    let works = "while read -r used rest < /proc/$$/schedstat && [ $used -lt 400000000 ]; do :; done";
    let limit = 2_000;
    let (end, took) = slowly(works, limit);
    assert_eq!(end, "Some(0) ", "it needs 0.4 s of processor time, and took {took:?}");
    assert!(took > Duration::from_millis(limit), "the processor was not busy: {took:?}");
    let (end, _) = slowly("exec sleep 1000", 500);
    assert_eq!(end, " did not end within 0.5 s and was killed");
}

#[test]
fn progress_of_a_program_that_works_is_reported() {
    let reports = |script: &str| {
        let reports = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&reports);
        let report: Arc<dyn Fn() + Send + Sync> = Arc::new(move || _ = counter.fetch_add(1, Relaxed));
        let end = super::report_progress(&report, || shell(script, LONG).output());
        assert!(end.expect("it ends").0.status.success());
        assert!(shell("sleep 1.2", LONG).output().is_ok(), "a program that is not reported");
        reports.load(Relaxed)
    };
    assert!(
        reports("while read -r used rest < /proc/$$/schedstat && [ $used -lt 1500000000 ]; do :; done") > 0
    );
    assert!(reports("for n in 1 2 3; do sleep 0.7; echo $n; done") > 0, "it prints something");
    // Its start counts.
    assert!(reports("exec sleep 5") <= 2, "it sleeps");
    assert!(reports("for n in 1 2 3 4 5 6 7 8 9; do sleep 0.5; done") <= 2, "it waits for something");
}

#[test]
fn children_of_a_killed_program_end_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
    assert!(shell(&script, 2_000).output().is_err());
    let pid = fs::read_to_string(file).expect("the child was started");
    let stat = || fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    // The kernel ends killed processes one after another.
    let start = Instant::now();
    while !(stat().is_empty() || stat().contains(") Z ")) {
        assert!(start.elapsed() < Duration::from_secs(10), "{}", stat());
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn input_and_output_of_any_size_arrive() {
    let text: String = (0..200_000).map(|n| format!("line {n}\n")).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("copy");
    // It reads slowly at first, and prints errors meanwhile.
    let script = format!("sleep 0.2; head -c 100000 /dev/zero >&2; cat > {}", file.display());
    let end = shell(&script, LONG).feed(&mut |out| out.write_all(text.as_bytes())).expect("it ends");
    assert!(end.status.success());
    assert_eq!(fs::read_to_string(&file).expect("a copy"), text);
    let mut lines = 0;
    let end = shell(&format!("cat {}", file.display()), LONG).read_lines(&mut |line| {
        assert_eq!(line, format!("line {lines}"));
        lines += 1;
    });
    assert!(end.expect("it ends").status.success() && lines == 200_000);
}

#[test]
fn too_much_output_is_an_error() {
    let endless = shell("while :; do echo 0123456789012345678901234567890123456789; done", LONG);
    assert_eq!(
        described(endless.output().map(|(end, _)| end)),
        " printed more than 1048576 bytes and was killed"
    );
    let without_newline = shell("cat /dev/zero", LONG);
    assert_eq!(
        described(without_newline.read_lines(&mut |_| ())),
        " printed more than 65536 bytes and was killed"
    );
}
