//! A machine of its own for a test: Debian's cloud kernel, which has all that daemons meet on real nodes, in QEMU.
//! It boots in about 5 s and computes some 15 times slower than the host, so what can run in [`uml`](crate::uml) does.
//!
//! IPVS, nf_tables in all families, legacy iptables, ipset, SCTP, dummy links, flow tables and queues are there
//! together. The machine sees the host's files. What it writes below `/run` and `/dev/shm`, and to temporary files, it
//! has for itself. It has two processors and no network but its own.
//!
//! The kernel is no package that is installed: `make qemu` fetches it into the build's folder.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::machine::{Kind, Processes, packages_of_missing};

/// How long a test may take by default, boot included.
const LIMIT: Duration = Duration::from_secs(300);

/// What the build's folder has the kernel as.
const KERNEL: &str = "qemu-kernel";

const KIND: Kind = Kind {
    name: "qemu",
    title: "a machine of QEMU",
    folder: "PORTCULLIS_QEMU_FOLDER",
    keep: "PORTCULLIS_QEMU_KEEP",
    init: include_str!("init.sh"),
    missing_packages,
    start,
};

/// The programs that it takes, each with the Debian package that has it.
const PROGRAMS: [(&str, &str); 8] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("modprobe", "kmod"),
    ("ipvsadm", "ipvsadm"),
    ("ipset", "ipset"),
    ("conntrack", "conntrack"),
    ("nft", "nftables"),
    ("xtables-nft-multi", "iptables"),
    ("ip", "iproute2"),
];

/// What gives the machine the host's files, where releases of Debian have it.
const VIRTIOFSD: [&str; 2] = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"];

/// The machine's memory. Only what it uses is taken.
const MEMORY: &str = "memory-backend-memfd,id=memory,size=1G,share=on";

/// What the kernel need not do in a machine whose processors are emulated and whose programs are trusted; this halves
/// the time that it takes to boot. A kernel that breaks ends the machine.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr init_on_alloc=0 apparmor=0 \
    tsc=reliable no_timer_check lpj=4000000 nowatchdog rcupdate.rcu_expedited=1";

/// Runs the rest of a test inside a machine of its own. To be called first thing in a `#[test]`, which runs twice:
/// on the host, where this boots the machine, and inside, where this runs the closure. It must end within 300 s.
///
/// With `PORTCULLIS_QEMU_KEEP=1` the machine's folder stays, and its console in it.
///
/// # Panics
/// If the closure panics, with all that the test printed; if it does not end in time; if programs or the kernel are
/// missing.
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
/// once it has ended with status 0; at most the last 64 KiB. `limit` includes the boot, which takes about 5 s.
///
/// # Errors
/// How it ended otherwise, with what it printed; or what is missing.
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
    if missing.is_empty() && virtiofsd().is_none() {
        missing.push("qemu-system-common");
    }
    missing
}

fn virtiofsd() -> Option<&'static str> {
    VIRTIOFSD.into_iter().find(|program| Path::new(program).is_file())
}

/// The folder that `qemu/kernel.sh` made: in the build's folder, where this program lies, too.
fn kernel_folder() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let mut folders = program.ancestors().map(|folder| folder.join(KERNEL));
    folders.find(|folder| folder.is_dir()).ok_or_else(|| {
        let above = program.display();
        io::Error::other(format!(
            "the kernel is not in any folder `{KERNEL}` above {above}: `make qemu` fetches it"
        ))
    })
}

fn start(folder: &Path, console: File) -> io::Result<Processes> {
    let kernel = kernel_folder()?;
    fs::write(folder.join("kernels"), format!("{}\n", kernel.join("modules").display()))?;
    let socket = folder.join("files");
    let mut files = serve_files(&UnixListener::bind(&socket)?, &folder.join("files.log"))?;

    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-no-reboot", "-display", "none", "-net", "none", "-serial", "stdio"]);
    // Without the processor's random numbers, the kernel has none for half a minute.
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "qemu64,+rdrand", "-smp", "2", "-m", "1G"]);
    // The server of the files reads and writes the machine's memory.
    qemu.args(["-object", MEMORY, "-numa", "node,memdev=memory"]);
    qemu.arg("-chardev").arg(format!("socket,id=files,path={}", socket.display()));
    qemu.args(["-device", "vhost-user-fs-pci,chardev=files,tag=host"]);
    qemu.arg("-kernel").arg(kernel.join("vmlinuz")).arg("-initrd").arg(kernel.join("initramfs"));
    let init = folder.join("init");
    qemu.arg("-append").arg(format!("{KERNEL_ARGUMENTS} portcullis.init={}", init.display()));
    let group = i32::try_from(files.id()).expect("a process id fits");
    qemu.process_group(group).stdin(Stdio::null()).stderr(console.try_clone()?).stdout(console);
    match qemu.spawn() {
        Ok(kernel) => Ok(Processes { kernel, leader: Some(files) }),
        Err(error) => {
            // It was not waited for, so both do what they say.
            let _ = files.kill();
            let _ = files.wait();
            Err(error)
        }
    }
}

/// Serves the host's files to the first who connects, until it goes. All that the machine reads it may keep, as
/// nothing that it needs changes meanwhile.
fn serve_files(socket: &UnixListener, log: &Path) -> io::Result<Child> {
    let log = File::create(log)?;
    let mut files = Command::new(virtiofsd().unwrap_or(VIRTIOFSD[0]));
    files.args(["--fd=0", "-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot"]);
    // A process group of its own, by which it can be ended together with the machine.
    files.process_group(0).stdin(OwnedFd::from(socket.try_clone()?)).stdout(log.try_clone()?).stderr(log);
    files.spawn()
}
