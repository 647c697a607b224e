//! Emulated machines that run a test, or another program, on a kernel of their own: [user-mode Linux](uml) and [QEMU](qemu).
//! For tests and benchmarks only. [`tools`] finds the programs that tests download.
//!
//! ```text
//! test ─ inside ─ boots a kernel whose root is the host's ─ runs the same binary, the same test ─ inside ─ closure
//!           └── reads the outcome and the output ◄── files in the machine's folder ────────────────────────┘
//! ```
//! An `Emulator` defines how a machine is started and the first half of its init script. The rest is common.

mod script;

pub mod qemu;
pub mod tools;
pub mod uml;

use std::any::Any;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Line that the init script prints before the program starts.
const BEGINS: &str = "portcullis-machine: the program begins\n";

/// Text that the kernel prints after the program has ended.
const ENDS: &str = "sysrq: Power Off";

/// Maximum length of the reported output, in bytes.
const MAX_OUTPUT: usize = 64 << 10;

/// Second half of the init script.
const INIT: &str = include_str!("init.sh");

/// An emulator of machines.
struct Emulator {
    /// Name of its module, and part of the names of folders.
    name: &'static str,
    /// Description for error messages.
    title: &'static str,
    /// Environment variable of programs inside: the machine's folder.
    folder: &'static str,
    /// If this environment variable is set on the host, the machine's folder is kept, with the console output.
    keep: &'static str,
    /// First half of the init script, specific to the kernel.
    init: &'static str,
    /// Returns the missing Debian packages.
    missing_packages: fn() -> Vec<&'static str>,
    /// Starts a machine with the init script `init` of its folder, and with this file as its console.
    start: fn(&Path, File) -> io::Result<Processes>,
}

/// Host processes of a machine.
struct Processes {
    /// Exits when the machine is turned off.
    kernel: Child,
    /// Another process that the machine needs, and that leads the process group; otherwise `kernel` does.
    leader: Option<Child>,
}

impl Processes {
    /// Returns the id of the process group.
    fn group(&self) -> u32 {
        self.leader.as_ref().unwrap_or(&self.kernel).id()
    }
}

/// Returns the Debian packages of missing programs.
fn packages_of_missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    let is_installed = |program: &str| folders.iter().any(|folder| folder.join(program).is_file());
    programs.iter().filter(|(program, _)| !is_installed(program)).map(|(_, package)| *package).collect()
}

impl Emulator {
    /// Runs the rest of a test inside a machine.
    ///
    /// # Panics
    /// If the closure panics, with the test's output; if it exceeds the limit; if programs are missing.
    fn inside_for(&self, limit: Duration, test: impl FnOnce()) {
        if let Some(folder) = std::env::var_os(self.folder) {
            return run_and_report(Path::new(&folder), test);
        }
        let name = thread::current().name().unwrap_or_default().to_owned();
        assert!(
            !name.is_empty() && name != "main",
            "`{}::inside` must be called on the test's own thread, which has its name",
            self.name
        );
        let binary =
            std::env::current_exe().unwrap_or_else(|error| panic!("cannot find this program: {error}"));
        let arguments = ["--nocapture", "--exact", &name];
        let ended = self.run_to_end(&binary, arguments, limit).unwrap_or_else(|message| panic!("{message}"));
        match ended.outcome.as_str() {
            "passed" => println!("{}", ended.output),
            "" => panic!("{}", ended.failure("ended without reporting an outcome")),
            message => panic!("{}", ended.failure(&format!("failed: {message}"))),
        }
    }

    /// Runs a program inside a machine, with this process's environment and working directory. Returns the end of its
    /// output if it exits with status 0.
    ///
    /// # Errors
    /// Another exit status, with the output; or missing programs.
    fn run<'a>(
        &self,
        program: &Path,
        arguments: impl IntoIterator<Item = &'a str>,
        limit: Duration,
    ) -> Result<String, String> {
        let ended = self.run_to_end(program, arguments, limit)?;
        match ended.status {
            Some(0) => Ok(ended.output),
            Some(status) => Err(ended.failure(&format!("exited with status {status}"))),
            None => Err(ended.failure("ended without an exit status")),
        }
    }

    /// Returns true if this process runs inside such a machine.
    fn is_inside(&self) -> bool {
        std::env::var_os(self.folder).is_some()
    }

    /// Boots a machine for a program, and waits until it is turned off.
    fn run_to_end<'a>(
        &self,
        program: &Path,
        arguments: impl IntoIterator<Item = &'a str>,
        limit: Duration,
    ) -> Result<Ended, String> {
        let missing = (self.missing_packages)();
        if !missing.is_empty() {
            return Err(format!("{} requires: apt-get install {}", self.title, missing.join(" ")));
        }
        let machine = Machine::boot(self, program, arguments);
        machine.map_err(|error| format!("cannot boot a machine: {error}"))?.wait(limit)
    }
}

/// Runs the closure and writes its outcome to a file. The test's own result is not enough: a test with `should_panic`
/// passes if the closure panics.
fn run_and_report(folder: &Path, test: impl FnOnce()) {
    let result = catch_unwind(AssertUnwindSafe(test));
    let outcome = result.as_ref().map_or_else(|panic| message(panic.as_ref()), |()| "passed".to_owned());
    fs::write(folder.join("outcome"), outcome).expect("the machine's folder is writable");
    result.unwrap_or_else(|panic| resume_unwind(panic));
}

/// Returns the message of a panic.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}

/// A running machine.
struct Machine {
    processes: Processes,
    /// Waits at the end of a pipe until this process exits or has finished with the machine.
    cleanup: Child,
    folder: PathBuf,
    keep: bool,
}

/// Result of the program in a machine.
struct Ended {
    /// Its exit status; `None` if the machine ended first.
    status: Option<i32>,
    /// The outcome that a test reported.
    outcome: String,
    output: String,
}

impl Ended {
    fn failure(&self, message: &str) -> String {
        format!("the program inside the machine {message}\n--- its output ---\n{}", self.output)
    }
}

/// Script that cleans up after a machine: kills its process group ($1) unless a line on standard input says that it has
/// ended, and removes its folder ($2).
const CLEANUP: &str = r#"trap '' HUP INT TERM; read -r _ || kill -KILL "-$1"; [ -z "$2" ] || rm -rf "$2""#;

impl Machine {
    fn boot<'a>(
        emulator: &Emulator,
        program: &Path,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> io::Result<Self> {
        let keep = std::env::var_os(emulator.keep).is_some();
        let folder = tempfile::Builder::new().prefix(&format!("portcullis-{}-", emulator.name)).tempdir()?;
        let init = folder.path().join("init");
        fs::write(&init, [emulator.init, INIT].concat())?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
        let exported = (emulator.folder, folder.path());
        fs::write(folder.path().join("run"), script::for_program(program, arguments, exported)?)?;
        let console = File::create(folder.path().join("console"))?;
        let processes = (emulator.start)(folder.path(), console)?;
        // From here on the script removes the folder.
        let folder = folder.keep();
        let mut cleanup = Command::new("sh");
        cleanup.args(["-c", CLEANUP, "portcullis-machine-cleanup", &processes.group().to_string()]);
        cleanup.arg(if keep { Path::new("") } else { &folder });
        cleanup.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { processes, cleanup: cleanup.spawn()?, folder, keep })
    }

    /// Waits until the machine is turned off.
    fn wait(mut self, limit: Duration) -> Result<Ended, String> {
        let until = Instant::now() + limit;
        let in_time = loop {
            match self.processes.kernel.try_wait() {
                Ok(Some(_)) => break true,
                Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(20)),
                Ok(None) => break false,
                Err(error) => return Err(format!("cannot wait for the machine: {error}")),
            }
        };
        let read = |name| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let (outcome, status) = (read("outcome"), read("status").trim().parse().ok());
        let ended = Ended { status, outcome, output: self.output() };
        match in_time || !ended.outcome.is_empty() {
            true => Ok(ended),
            false => Err(ended.failure(&format!("did not end within {limit:?} and was killed"))),
        }
    }

    /// Returns the console output since the program began, or all of it if the program did not begin.
    fn output(&self) -> String {
        let bytes = fs::read(self.folder.join("console")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
        let text = text.split_once(BEGINS).map_or(text.as_str(), |(_, after)| after);
        // The kernel may start its line with a timestamp.
        let lines = |(before, _): (&'_ str, _)| before.rfind('\n').unwrap_or_default();
        let text = text.rsplit_once(ENDS).map(lines).map_or(text, |end| &text[..end]);
        let from = text.len().saturating_sub(MAX_OUTPUT);
        let from = (from..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or_default();
        text[from..].trim_end().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.keep {
            println!("the machine's folder is {}", self.folder.display());
        }
        let Processes { kernel, leader } = &mut self.processes;
        let group = leader.as_ref().unwrap_or(kernel).id();
        // The leader was not waited for, so the id of its group was not reused.
        if leader.is_some() || !matches!(kernel.try_wait(), Ok(Some(_))) {
            let group = libc::pid_t::try_from(group).expect("a process id fits");
            // SAFETY: no pointers are passed; see above for the process group.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        // Waiting cannot fail for a child that was not waited for. If the cleanup process has exited, nothing is left.
        let _ = kernel.wait();
        let _ = leader.as_mut().map(Child::wait);
        if let Some(mut stdin) = self.cleanup.stdin.take() {
            let _ = stdin.write_all(b"ended\n");
        }
        let _ = self.cleanup.wait();
    }
}
