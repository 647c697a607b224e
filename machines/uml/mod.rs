//! Machines of user-mode Linux, whose kernel has features that the host's may lack, in particular IPVS. They boot in 2 s.
//!
//! A machine sees the host's files. Files that it writes below `/run` and `/dev/shm`, and temporary files, are its own. It
//! has one processor, no connection to the host's network, and the legacy iptables: its nf_tables has no families ip and
//! ip6. Tests that need these run in [`qemu`](crate::qemu).

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::{Emulator, Processes, packages_of_missing};

/// Default time limit of a test, including the boot.
const LIMIT: Duration = Duration::from_secs(170);

/// The memory of a machine. The host allocates only the used part.
const MEMORY_MIB: u64 = 1536;

const EMULATOR: Emulator = Emulator {
    name: "uml",
    title: "user-mode Linux",
    folder: "PORTCULLIS_UML_FOLDER",
    keep: "PORTCULLIS_UML_KEEP",
    init: include_str!("init.sh"),
    missing_packages,
    start,
};

/// Required programs, each with its Debian package.
const PROGRAMS: [(&str, &str); 7] = [
    ("linux.uml", "user-mode-linux"),
    ("modprobe", "kmod"),
    ("ipvsadm", "ipvsadm"),
    ("ipset", "ipset"),
    ("conntrack", "conntrack"),
    ("xtables-legacy-multi", "iptables"),
    ("ip", "iproute2"),
];

/// Runs the rest of a test inside a machine. Must be called first in a `#[test]`, which runs twice: on the host, where this
/// boots the machine, and inside, where this runs the closure. The limit is 170 s.
///
/// With `PORTCULLIS_UML_KEEP=1` the machine's folder is kept, with the console output.
///
/// # Panics
/// If the closure panics, with the test's output; if it exceeds the limit; if programs are missing.
pub fn inside(test: impl FnOnce()) {
    inside_for(LIMIT, test);
}

/// Runs the rest of a test inside a machine as [`inside`] does, with another limit.
///
/// # Panics
/// As [`inside`].
pub fn inside_for(limit: Duration, test: impl FnOnce()) {
    EMULATOR.inside_for(limit, test);
}

/// Runs a program inside a machine, with this process's environment and working directory. Returns at most the last 64 KiB
/// of its output if it exits with status 0. `limit` includes the boot, which takes 2 s.
///
/// # Errors
/// Another exit status, with the output; or the missing packages.
pub fn run<'a>(
    program: &Path,
    arguments: impl IntoIterator<Item = &'a str>,
    limit: Duration,
) -> Result<String, String> {
    EMULATOR.run(program, arguments, limit)
}

/// Returns true if this process runs inside such a machine.
pub fn is_inside() -> bool {
    EMULATOR.is_inside()
}

fn missing_packages() -> Vec<&'static str> {
    let mut missing = packages_of_missing(&PROGRAMS);
    if missing.is_empty() && !Path::new("/usr/lib/uml/modules").is_dir() {
        missing.push("user-mode-linux");
    }
    missing
}

fn start(folder: &Path, console: File) -> io::Result<Processes> {
    let mut kernel = Command::new("linux.uml");
    kernel.args(["rootfstype=hostfs", "rw", "con=null", "con0=fd:0,fd:1", "quiet"]);
    kernel.arg(format!("mem={MEMORY_MIB}M"));
    kernel.args([format!("init={}", folder.join("init").display()), format!("uml_dir={}", folder.display())]);
    // The machine's memory is a file, by default in /dev/shm, which is often too small in containers.
    if free_bytes(Path::new("/dev/shm")).is_none_or(|free| free < MEMORY_MIB << 20) {
        kernel.env("TMPDIR", std::env::temp_dir());
    }
    // A process group of its own, so that all of its processes can be killed.
    kernel.process_group(0).stdin(Stdio::null()).stderr(console.try_clone()?).stdout(console);
    Ok(Processes { kernel: kernel.spawn()?, leader: None })
}

/// Returns the free space of a file system.
fn free_bytes(folder: &Path) -> Option<u64> {
    let path = CString::new(folder.as_os_str().as_bytes()).ok()?;
    // SAFETY: all zeroes are a value of this plain struct of numbers.
    let mut statistics: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in a zero, and both outlive the call.
    let status = unsafe { libc::statvfs(path.as_ptr(), &mut statistics) };
    (status == 0).then(|| statistics.f_bavail * statistics.f_frsize)
}
