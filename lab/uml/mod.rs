//! A machine of its own for a test: user-mode Linux, whose kernel has what the machine's own may not, IPVS first
//! of all. It boots in 2 s.
//!
//! The machine sees the host's files. What it writes below `/run` and `/dev/shm`, and to temporary files, it has for
//! itself. It has one processor, no network but its own, and the legacy iptables: nf_tables knows no IP there. What
//! needs that runs in [`qemu`](crate::qemu).

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::machine::{Kind, Processes, packages_of_missing};

/// How long a test may take by default, boot included.
const LIMIT: Duration = Duration::from_secs(170);

/// The memory of a machine. Only what it uses is taken.
const MEMORY_MIB: u64 = 1536;

const KIND: Kind = Kind {
    name: "uml",
    title: "a machine of user-mode Linux",
    folder: "PORTCULLIS_UML_FOLDER",
    keep: "PORTCULLIS_UML_KEEP",
    init: include_str!("init.sh"),
    missing_packages,
    start,
};

/// The programs that it takes, each with the Debian package that has it.
const PROGRAMS: [(&str, &str); 7] = [
    ("linux.uml", "user-mode-linux"),
    ("modprobe", "kmod"),
    ("ipvsadm", "ipvsadm"),
    ("ipset", "ipset"),
    ("conntrack", "conntrack"),
    ("xtables-legacy-multi", "iptables"),
    ("ip", "iproute2"),
];

/// Runs the rest of a test inside a machine of its own. To be called first thing in a `#[test]`, which runs twice:
/// on the host, where this boots the machine, and inside, where this runs the closure. It
/// must end within 170 s.
///
/// With `PORTCULLIS_UML_KEEP=1` the machine's folder stays, and its console in it.
///
/// # Panics
/// If the closure panics, with all that the test printed; if it does not end in time; if programs are missing.
pub fn inside(test: impl FnOnce()) {
    inside_for(LIMIT, test);
}

/// As [`inside`], for a test that takes longer or should be given less time.
///
/// # Panics
/// As [`inside`].
pub fn inside_for(limit: Duration, test: impl FnOnce()) {
    KIND.inside_for(limit, test);
}

/// Runs a program inside a machine of its own, with this process's environment and folder. Gives what it printed
/// once it has ended with status 0; at most the last 64 KiB. `limit` includes the boot, which takes 2 s.
///
/// # Errors
/// How it ended otherwise, with what it printed; or which packages are missing.
pub fn run<'a>(
    program: &Path,
    arguments: impl IntoIterator<Item = &'a str>,
    limit: Duration,
) -> Result<String, String> {
    KIND.run(program, arguments, limit)
}

/// Whether this process runs inside such a machine.
pub fn is_inside() -> bool {
    KIND.is_inside()
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
    // The machine's memory is a file, in /dev/shm by default, which in a container is often too small for it.
    if free_bytes(Path::new("/dev/shm")).is_none_or(|free| free < MEMORY_MIB << 20) {
        kernel.env("TMPDIR", std::env::temp_dir());
    }
    // A process group of its own, by which all of its processes can be ended.
    kernel.process_group(0).stdin(Stdio::null()).stderr(console.try_clone()?).stdout(console);
    Ok(Processes { kernel: kernel.spawn()?, leader: None })
}

/// What a file system has left.
fn free_bytes(folder: &Path) -> Option<u64> {
    let path = CString::new(folder.as_os_str().as_bytes()).ok()?;
    // SAFETY: all zeroes are a value of this plain struct of numbers.
    let mut answer: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in a zero, and both outlive the call.
    let status = unsafe { libc::statvfs(path.as_ptr(), &mut answer) };
    (status == 0).then(|| answer.f_bavail * answer.f_frsize)
}
