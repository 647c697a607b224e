//! `portcullis pause` as the first process of a PID namespace.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Limit of the memory that each process of a node has for itself, in KiB. Most are relocations, of which a debug build has 2 MiB.
const MAX_PRIVATE_MEMORY: u64 = 4 * 1024;

/// SIGCHLD in the masks of `/proc/PID/status`.
const SIGCHLD_BIT: u64 = 1 << 16;

const TIMEOUT: Duration = Duration::from_secs(60);

/// `pause` in a PID namespace of its own. Killed when dropped, and all processes of the namespace with it.
struct Pause {
    unshare: Child,
    /// Its ID outside.
    process: u32,
}

impl Pause {
    fn start() -> Self {
        let unshare = Command::new("unshare")
            .args(["--pid", "--mount", "--fork", "--kill-child", "--mount-proc"])
            .args([env!("CARGO_BIN_EXE_portcullis"), "pause"])
            .stdout(Stdio::null())
            .spawn()
            .expect("unshare runs");
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let process = wait_until(|| fs::read_to_string(&children).ok()?.trim().parse().ok());
        let pause = Self { unshare, process };
        // It ignores SIGCHLD after it has blocked the other signals.
        let ignored = || u64::from_str_radix(&pause.status_field("SigIgn"), 16).expect("a bit mask");
        wait_until(|| (ignored() & SIGCHLD_BIT != 0).then_some(()));
        pause
    }

    fn status_field(&self, name: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process)).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.expect("a field of the kernel").trim().to_owned()
    }

    /// Runs a shell script in its namespaces.
    fn shell(&self, script: &str) -> String {
        let output = Command::new("nsenter")
            .args(["--pid", "--mount", "--target", &self.process.to_string(), "sh", "-c", script])
            .output()
            .expect("nsenter runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.process.to_string()]).status();
        assert!(status.expect("kill runs").success());
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

fn wait_until<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < TIMEOUT, "timed out");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn signals_end_it() {
    for signal in ["TERM", "INT"] {
        let mut pause = Pause::start();
        // Others do not, as for any process 1.
        pause.signal("HUP");
        pause.signal("STOP");
        pause.signal("CONT");
        pause.signal(signal);
        let status = wait_until(|| pause.unshare.try_wait().expect("a child"));
        assert_eq!(status.code(), Some(0), "SIG{signal}");
    }
}

#[test]
fn it_reaps_orphans() {
    let pause = Pause::start();
    // Their parent ends first.
    pause.shell("for i in 1 2 3 4 5; do (sleep 0.0$i &); done");
    let children = format!("/proc/{0}/task/{0}/children", pause.process);
    wait_until(|| fs::read_to_string(&children).expect("it runs").trim().is_empty().then_some(()));
    let states = pause.shell("cat /proc/[0-9]*/stat | cut -d ' ' -f 3");
    assert!(!states.contains('Z'), "{states}");
}

#[test]
fn its_memory_is_limited() {
    let pause = Pause::start();
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", pause.process)).expect("it runs");
    let field = |name: &str| -> u64 {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).expect("a field of the kernel");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    let (private, resident) = (field("Private_Dirty:"), field("Rss:"));
    println!("{private} KiB private, {resident} KiB resident");
    assert!(private <= MAX_PRIVATE_MEMORY, "{private} KiB");
    assert_eq!(pause.status_field("Threads"), "1");
}

#[test]
fn the_version_is_printed() {
    for flag in ["-V", "--version"] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_portcullis")).args(["pause", flag]).output().expect("it runs");
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).starts_with("Portcullis v"), "{output:?}");
    }
}
