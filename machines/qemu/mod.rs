//! Machines of QEMU with Debian's cloud kernel, which has all features of real nodes. They boot in about 5 s and compute
//! about 15 times slower than the host, so tests run in [`uml`](crate::uml) if they can.
//!
//! The kernel has IPVS, nf_tables in all families, legacy iptables, ipset, SCTP, dummy links, flow tables and queues. A
//! machine sees the host's files. Files that it writes below `/run` and `/dev/shm`, and temporary files, are its own. It
//! has two processors and no connection to the host's network.
//!
//! The kernel is not an installed package: `make qemu` downloads it into the build folder.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{Emulator, Processes, packages_of_missing};

/// Default time limit of a test, including the boot.
const LIMIT: Duration = Duration::from_secs(300);

/// Name of the kernel's folder in the build folder.
const KERNEL: &str = "qemu-kernel";

const EMULATOR: Emulator = Emulator {
    name: "qemu",
    title: "a QEMU machine",
    folder: "PORTCULLIS_QEMU_FOLDER",
    keep: "PORTCULLIS_QEMU_KEEP",
    init: include_str!("init.sh"),
    missing_packages,
    start,
};

/// Required programs, each with its Debian package.
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

/// Paths of virtiofsd in releases of Debian.
const VIRTIOFSD: [&str; 2] = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"];

/// The machine's memory. The host allocates only the used part.
const MEMORY: &str = "memory-backend-memfd,id=memory,size=1G,share=on";

/// Kernel parameters that disable features unnecessary in an emulated machine with trusted programs, which halves the boot
/// time. A kernel panic ends the machine.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr init_on_alloc=0 apparmor=0 \
    tsc=reliable no_timer_check lpj=4000000 nowatchdog rcupdate.rcu_expedited=1";

/// Runs the rest of a test inside a machine. Must be called first in a `#[test]`, which runs twice: on the host, where this
/// boots the machine, and inside, where this runs the closure. The limit is 300 s.
///
/// With `PORTCULLIS_QEMU_KEEP=1` the machine's folder is kept, with the console output.
///
/// # Panics
/// If the closure panics, with the test's output; if it exceeds the limit; if programs or the kernel are missing.
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
/// of its output if it exits with status 0. `limit` includes the boot, which takes about 5 s.
///
/// # Errors
/// Another exit status, with the output; or the missing packages or kernel.
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
    if missing.is_empty() && virtiofsd().is_none() {
        missing.push("qemu-system-common");
    }
    missing
}

fn virtiofsd() -> Option<&'static str> {
    VIRTIOFSD.into_iter().find(|program| Path::new(program).is_file())
}

/// Returns the folder created by `qemu/kernel.sh` in the build folder, which also contains this program.
fn kernel_folder() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let mut folders = program.ancestors().map(|folder| folder.join(KERNEL));
    folders.find(|folder| folder.is_dir()).ok_or_else(|| {
        let above = program.display();
        io::Error::other(format!("no kernel in a folder `{KERNEL}` above {above}; `make qemu` downloads it"))
    })
}

fn start(folder: &Path, console: File) -> io::Result<Processes> {
    let kernel = kernel_folder()?;
    fs::write(folder.join("kernels"), format!("{}\n", kernel.join("modules").display()))?;
    let socket = folder.join("files");
    let mut files = serve_files(&UnixListener::bind(&socket)?, &folder.join("files.log"))?;

    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-no-reboot", "-display", "none", "-net", "none", "-serial", "stdio"]);
    // Without rdrand, the kernel has no random numbers for half a minute.
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "qemu64,+rdrand", "-smp", "2", "-m", "1G"]);
    // virtiofsd shares the machine's memory.
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
            // Cannot fail, because the process was not waited for.
            let _ = files.kill();
            let _ = files.wait();
            Err(error)
        }
    }
}

/// Starts virtiofsd for one connection. The machine may cache all files, because none that it needs changes.
fn serve_files(socket: &UnixListener, log: &Path) -> io::Result<Child> {
    let log = File::create(log)?;
    let mut files = Command::new(virtiofsd().unwrap_or(VIRTIOFSD[0]));
    files.args(["--fd=0", "-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot"]);
    // A process group of its own, so that it can be killed together with the machine.
    files.process_group(0).stdin(OwnedFd::from(socket.try_clone()?)).stdout(log.try_clone()?).stderr(log);
    files.spawn()
}
