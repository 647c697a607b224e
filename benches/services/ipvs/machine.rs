//! A user-mode Linux machine that runs this benchmark for one number of Services.

use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use portcullis_machines::uml;
use tempfile::TempDir;

use crate::figures::Measured;

/// The longest possible run.
const LIMIT: Duration = Duration::from_secs(3600);

/// Boots a machine, measures in it, and returns the figures.
pub(crate) fn measure(services: usize, repeats: usize, changes: usize) -> Measured {
    let folder = TempDir::new().expect("a temporary folder");
    let json = folder.path().join("figures.json");
    let program = std::env::current_exe().expect("it runs");
    let numbers = [("--sizes", services), ("--repeats", repeats), ("--changes", changes)];
    let numbers = numbers.map(|(name, number)| format!("{name}={number}"));
    let to = format!("--json={}", json.display());
    let arguments =
        ["--modes=ipvs", "--parts=syncs", &to].into_iter().chain(numbers.iter().map(String::as_str));
    let run = || {
        stay_on_this_processor();
        uml::run(&program, arguments, LIMIT).unwrap_or_else(|complaint| panic!("{complaint}"))
    };
    let printed = thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| resume_unwind(panic));
    let text =
        std::fs::read_to_string(&json).unwrap_or_else(|error| panic!("no figures: {error}\n{printed}"));
    let measured: Vec<Measured> = serde_json::from_str(&text).expect("written by this program");
    measured.into_iter().next().expect("there was one number of Services")
}

/// Pins this thread and its children to one CPU: the machine's programs alternate with its kernel, each a process here,
/// and waking another CPU each time costs more than the measured work.
fn stay_on_this_processor() {
    // SAFETY: all zeroes are a value of this plain set of bits; the calls take pointers to it alone, and its size.
    let status = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu() as usize, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set)
    };
    assert_eq!(status, 0, "cannot stay: {}", std::io::Error::last_os_error());
}
