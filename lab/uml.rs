//! A machine of its own for a test: user-mode Linux, whose kernel has what the machine's own may not, IPVS first
//! of all.
//!
//! ```text
//! test ─ inside ─ boots linux.uml, whose root is the host's ─ runs the same binary, the same test ─ inside ─ closure
//!           └── reads ── passed? what was printed? ◄── files of the machine's folder ────────────────────┘
//! ```
//! [`run`] is the half of it for what is no test: any program, whose exit status tells how it went.
//!
//! The machine sees the host's files. What it writes below `/run` and `/dev/shm`, and to temporary files, it has for
//! itself. It has one processor, no network but its own, and the legacy iptables: nf_tables knows no IP there.

use std::any::Any;
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::state;

/// How long a test may take by default, boot included.
const LIMIT: Duration = Duration::from_secs(170);

/// Tells a test that it runs inside: the machine's folder.
const FOLDER: &str = "PORTCULLIS_UML_FOLDER";

/// If set on the host, the folder of a machine stays, with all that its console showed.
const KEEP: &str = "PORTCULLIS_UML_KEEP";

/// What the first process of the machine does.
const INIT: &str = include_str!("uml_init.sh");

/// What that prints before the program.
const BEGINS: &str = "portcullis-uml: the program begins\n";

/// What the kernel prints after it.
const ENDS: &str = "sysrq: Power Off";

/// The memory of a machine. Only what it uses is taken.
const MEMORY_MIB: u64 = 1536;

/// At most so much of what a machine printed is told, in bytes.
const TOLD: usize = 64 << 10;

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
    if let Some(folder) = std::env::var_os(FOLDER) {
        return run_and_report(Path::new(&folder), test);
    }
    let name = thread::current().name().unwrap_or_default().to_owned();
    assert!(
        !name.is_empty() && name != "main",
        "`uml::inside` must be called on the test's own thread, which bears its name"
    );
    let binary = std::env::current_exe().unwrap_or_else(|error| panic!("where is this program? {error}"));
    let arguments = ["--nocapture", "--exact", &name];
    let ended = run_to_end(&binary, arguments, limit).unwrap_or_else(|complaint| panic!("{complaint}"));
    match ended.outcome.as_str() {
        "passed" => println!("{}", ended.printed),
        "" => panic!("{}", ended.complaint("ended without a word")),
        said => panic!("{}", ended.complaint(&format!("failed: {said}"))),
    }
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
    let ended = run_to_end(program, arguments, limit)?;
    match ended.status {
        Some(0) => Ok(ended.printed),
        Some(status) => Err(ended.complaint(&format!("ended with status {status}"))),
        None => Err(ended.complaint("ended without a word")),
    }
}

/// Whether this process runs inside such a machine.
pub fn is_inside() -> bool {
    std::env::var_os(FOLDER).is_some()
}

/// Runs the closure and leaves word of how it went. The test's own verdict would not do: a test that should panic
/// passes when the closure fails.
fn run_and_report(folder: &Path, test: impl FnOnce()) {
    let outcome = catch_unwind(AssertUnwindSafe(test));
    let word = outcome.as_ref().map_or_else(|panic| message(panic.as_ref()), |()| "passed".to_owned());
    fs::write(folder.join("outcome"), word).expect("the machine's folder can be written to");
    outcome.unwrap_or_else(|panic| resume_unwind(panic));
}

/// Boots a machine for a program, and waits for its end.
fn run_to_end<'a>(
    program: &Path,
    arguments: impl IntoIterator<Item = &'a str>,
    limit: Duration,
) -> Result<Ended, String> {
    let missing = missing_packages();
    if !missing.is_empty() {
        return Err(format!("a machine of user-mode Linux takes: apt-get install {}", missing.join(" ")));
    }
    let machine = script(program, arguments).and_then(|script| Machine::boot(&script));
    machine.map_err(|error| format!("cannot boot a machine: {error}"))?.wait(limit)
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}

fn missing_packages() -> Vec<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    let has = |program: &str| folders.iter().any(|folder| folder.join(program).is_file());
    let mut missing: Vec<_> =
        PROGRAMS.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() && !Path::new("/usr/lib/uml/modules").is_dir() {
        missing.push("user-mode-linux");
    }
    missing
}

/// A machine that runs, or ran.
struct Machine {
    kernel: Child,
    /// Waits at the end of a pipe until this process is done with the machine, in whatever way.
    watch: Child,
    folder: PathBuf,
    keep: bool,
}

/// How the program in a machine ended.
struct Ended {
    /// Its exit status; `None` if the machine went first.
    status: Option<i32>,
    /// What a test that failed or passed said of itself.
    outcome: String,
    printed: String,
}

impl Ended {
    fn complaint(&self, what: &str) -> String {
        format!("the program inside the machine {what}\n--- what it printed ---\n{}", self.printed)
    }
}

/// Takes what is left of a machine away: its processes ($1 is their group) unless told by a line that they are gone,
/// and its folder ($2).
const WATCH: &str = r#"trap '' HUP INT TERM; read -r _ || kill -KILL "-$1"; [ -z "$2" ] || rm -rf "$2""#;

impl Machine {
    fn boot(script: &[u8]) -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("portcullis-uml-{}", state::new_id()));
        let keep = std::env::var_os(KEEP).is_some();
        fs::create_dir(&folder)?;
        let init = folder.join("init");
        fs::write(&init, INIT)?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
        let exported = [b"export ", FOLDER.as_bytes(), b"=", &quoted(folder.as_os_str()), b"\n"].concat();
        fs::write(folder.join("run"), [&exported, script].concat())?;
        let console = File::create(folder.join("console"))?;
        let mut kernel = Command::new("linux.uml");
        kernel.args(["rootfstype=hostfs", "rw", "con=null", "con0=fd:0,fd:1", "quiet"]);
        kernel.arg(format!("mem={MEMORY_MIB}M"));
        kernel.args([format!("init={}", init.display()), format!("uml_dir={}", folder.display())]);
        // The machine's memory is a file, in /dev/shm by default, which in a container is often too small for it.
        if free_bytes(Path::new("/dev/shm")).is_none_or(|free| free < MEMORY_MIB << 20) {
            kernel.env("TMPDIR", std::env::temp_dir());
        }
        // A process group of its own, by which all of its processes can be ended.
        kernel.process_group(0).stdin(Stdio::null()).stderr(console.try_clone()?).stdout(console);
        let kernel = kernel.spawn()?;
        let mut watch = Command::new("sh");
        watch.args(["-c", WATCH, "portcullis-uml-watch", &kernel.id().to_string()]);
        watch.arg(if keep { Path::new("") } else { &folder });
        watch.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { kernel, watch: watch.spawn()?, folder, keep })
    }

    /// Waits for its end.
    fn wait(mut self, limit: Duration) -> Result<Ended, String> {
        let until = Instant::now() + limit;
        let in_time = loop {
            match self.kernel.try_wait() {
                Ok(Some(_)) => break true,
                Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(20)),
                Ok(None) => break false,
                Err(error) => return Err(format!("the machine cannot be waited for: {error}")),
            }
        };
        let said = |name| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let (outcome, status) = (said("outcome"), said("status").trim().parse().ok());
        let ended = Ended { status, outcome, printed: self.printed() };
        match in_time || !ended.outcome.is_empty() {
            true => Ok(ended),
            false => Err(ended.complaint(&format!("did not end within {limit:?}; it was turned off"))),
        }
    }

    /// What the console showed since the program began; all of it if that never came to be.
    fn printed(&self) -> String {
        let bytes = fs::read(self.folder.join("console")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
        let text = text.split_once(BEGINS).map_or(text.as_str(), |(_, after)| after);
        let text = text.rsplit_once(ENDS).map_or(text, |(before, _)| before);
        let from = text.len().saturating_sub(TOLD);
        let from = (from..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or_default();
        text[from..].trim_end().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.keep {
            println!("the machine's folder is {}", self.folder.display());
        }
        if !matches!(self.kernel.try_wait(), Ok(Some(_))) {
            let group = libc::pid_t::try_from(self.kernel.id()).expect("a process id fits");
            // SAFETY: no pointers are passed. The group is the kernel's, which was not waited for, so it is still its.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        // Neither fails for a child that was not waited for; and if the watch is gone, its work is all that is left.
        let _ = self.kernel.wait();
        if let Some(mut stdin) = self.watch.stdin.take() {
            let _ = stdin.write_all(b"ended\n");
        }
        let _ = self.watch.wait();
    }
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

/// Whether a variable is not for the machine: it has a place for temporary files of its own, and where cargo has
/// libraries looked for, every program that starts would look, too, which takes it longer than all the rest.
fn stays(variable: &OsStr) -> bool {
    variable == "TMPDIR" || variable == "LD_LIBRARY_PATH"
}

/// What the machine is to run: a program, where and with what this process has.
fn script<'a>(program: &Path, arguments: impl IntoIterator<Item = &'a str>) -> io::Result<Vec<u8>> {
    let mut script = Vec::new();
    let is_plain = |name: &OsStr| name.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
    for (name, value) in std::env::vars_os().filter(|(name, _)| is_plain(name) && !stays(name)) {
        let tail: &[u8] = if name == "PATH" { b"\"$PATH:\"" } else { b"" };
        script.extend([b"export ", name.as_bytes(), b"=", tail, &quoted(&value), b"\n"].concat());
    }
    script.extend([b"cd ", &quoted(std::env::current_dir()?.as_os_str())[..], b" || exit\nexec "].concat());
    script.extend(quoted(program.as_os_str()));
    for argument in arguments {
        script.push(b' ');
        script.extend(quoted(OsStr::new(argument)));
    }
    script.push(b'\n');
    Ok(script)
}

/// A word of a shell.
fn quoted(word: &OsStr) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend(br"'\''"),
            byte => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}
