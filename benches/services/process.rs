//! The kernel's accounting of a running process.

use std::time::Duration;

/// CPU time used so far, user and system.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessorTime {
    /// Of the process itself.
    pub(crate) own: Duration,
    /// Of its children that have ended.
    pub(crate) children: Duration,
}

impl ProcessorTime {
    pub(crate) fn of(pid: u32) -> ProcessorTime {
        let path = format!("/proc/{pid}/stat");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        // The name, in parentheses, may contain spaces. Field 3 follows it; 14 to 17 are the times.
        let after_name = text.rsplit_once(')').expect("the name stands in parentheses").1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks = |field: usize| fields[field - 3].parse::<f64>().expect("a time in clock ticks");
        // SAFETY: sysconf takes no pointers.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        ProcessorTime {
            own: Duration::from_secs_f64((ticks(14) + ticks(15)) / per_second),
            children: Duration::from_secs_f64((ticks(16) + ticks(17)) / per_second),
        }
    }

    /// Returns the time used since an earlier reading.
    pub(crate) fn since(self, earlier: ProcessorTime) -> ProcessorTime {
        ProcessorTime { own: self.own - earlier.own, children: self.children - earlier.children }
    }
}

/// Memory of a process, in MB (1,000,000 bytes).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Present resident memory, including the program's code.
    pub(crate) resident: f64,
    /// Highest resident memory since the start.
    pub(crate) peak_resident: f64,
    /// Present anonymous memory: heap and stacks, without code and files.
    pub(crate) anonymous: f64,
    /// Present resident memory of code and files, which processes share.
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
    Memory {
        resident: field("VmRSS:"),
        peak_resident: field("VmHWM:"),
        anonymous: field("RssAnon:"),
        file: field("RssFile:"),
    }
}

/// Waits for a child and returns its CPU time.
pub(crate) fn wait(child: &mut std::process::Child) -> (std::process::ExitStatus, Duration) {
    use std::os::unix::process::ExitStatusExt;
    let mut status = 0;
    // SAFETY: rusage is plain data, for which zeros are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let pid = i32::try_from(child.id()).expect("process ids are small");
    // SAFETY: both pointers are to live values; the child is ours and not waited for yet.
    let answer = unsafe { libc::wait4(pid, &mut status, 0, &mut usage) };
    assert_eq!(answer, pid, "cannot wait: {}", std::io::Error::last_os_error());
    (std::process::ExitStatus::from_raw(status), sum(&usage))
}

/// Returns the CPU time of this thread so far, user and system.
pub(crate) fn of_this_thread() -> Duration {
    read_clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Returns the CPU time of this process so far, user and system. The kernel charges it with the packets that it sends, up to
/// their receiver.
pub(crate) fn of_this_process() -> Duration {
    read_clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn read_clock(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live value.
    let status = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(status, 0, "cannot tell: {}", std::io::Error::last_os_error());
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Returns the sum of user and system time.
fn sum(usage: &libc::rusage) -> Duration {
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}
