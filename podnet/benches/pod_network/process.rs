//! The kernel's accounting of processes.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::Duration;

/// Waits for a child, and returns the processor time that it used, user and system.
pub(crate) fn wait(child: &mut Child) -> (ExitStatus, Duration) {
    let mut status = 0;
    // SAFETY: rusage is plain data, for which zeros are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let pid = i32::try_from(child.id()).expect("process ids are small");
    // SAFETY: both pointers are to live values; the child is ours and was not waited for before.
    let answer = unsafe { libc::wait4(pid, &mut status, 0, &mut usage) };
    assert_eq!(answer, pid, "cannot wait: {}", std::io::Error::last_os_error());
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    (ExitStatus::from_raw(status), time(usage.ru_utime) + time(usage.ru_stime))
}

/// Returns the processor time of this process so far, user and system. The kernel charges it with the packets that it sends, up to
/// their receiver.
pub(crate) fn own_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live value.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0, "cannot tell: {}", std::io::Error::last_os_error());
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Resident memory of a process, in MB (1,000,000 bytes).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Heap and stacks.
    pub(crate) anonymous: f64,
    /// Code and files, which processes share.
    pub(crate) file: f64,
}

/// Returns the memory of a process.
pub(crate) fn memory(pid: u32) -> Memory {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel reports memory");
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        kib * 1024.0 / 1e6
    };
    Memory { anonymous: field("RssAnon:"), file: field("RssFile:") }
}
