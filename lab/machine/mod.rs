//! Machines of their own for tests and other programs, whatever emulates them.
//!
//! ```text
//! test ─ inside ─ boots a kernel, whose root is the host's ─ runs the same binary, the same test ─ inside ─ closure
//!           └── reads ── passed? what was printed? ◄── files of the machine's folder ───────────────┘
//! ```
//! A [`Kind`] says how a machine is started, and what it does first. The rest is here.

mod script;

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

use crate::lab_record;

/// What a machine prints before the program.
const BEGINS: &str = "portcullis-machine: the program begins\n";

/// What its kernel prints after it.
const ENDS: &str = "sysrq: Power Off";

/// At most so much of what a machine printed is told, in bytes.
const TOLD: usize = 64 << 10;

/// The second half of what the first process of a machine does.
const INIT: &str = include_str!("init.sh");

/// What emulates a machine, and how.
pub(crate) struct Kind {
    /// The word for it, which the names of folders have, and that of its module.
    pub(crate) name: &'static str,
    /// The words for it.
    pub(crate) title: &'static str,
    /// The variable that tells a program that it runs inside: the machine's folder.
    pub(crate) folder: &'static str,
    /// If this variable is set on the host, the folder of a machine stays, with all that its console showed.
    pub(crate) keep: &'static str,
    /// The first half of what the first process of the machine does: what its kernel takes.
    pub(crate) init: &'static str,
    /// The Debian packages that are needed and not there.
    pub(crate) missing_packages: fn() -> Vec<&'static str>,
    /// Starts a machine that runs the file `init` of its folder first, and shows its console in that file.
    pub(crate) start: fn(&Path, File) -> io::Result<Processes>,
}

/// What a machine consists of, on the host.
pub(crate) struct Processes {
    /// Ends with the machine.
    pub(crate) kernel: Child,
    /// What else the machine takes. It leads the process group, as else `kernel` does.
    pub(crate) leader: Option<Child>,
}

impl Processes {
    /// The process group.
    fn group(&self) -> u32 {
        self.leader.as_ref().unwrap_or(&self.kernel).id()
    }
}

/// Those of the programs that are not there, by the Debian package that has them.
pub(crate) fn packages_of_missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    let has = |program: &str| folders.iter().any(|folder| folder.join(program).is_file());
    programs.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect()
}

impl Kind {
    /// Runs the rest of a test inside a machine.
    ///
    /// # Panics
    /// If the closure panics, with all that the test printed; if it does not end in time; if programs are missing.
    pub(crate) fn inside_for(&self, limit: Duration, test: impl FnOnce()) {
        if let Some(folder) = std::env::var_os(self.folder) {
            return run_and_report(Path::new(&folder), test);
        }
        let name = thread::current().name().unwrap_or_default().to_owned();
        assert!(
            !name.is_empty() && name != "main",
            "`{}::inside` must be called on the test's own thread, which bears its name",
            self.name
        );
        let binary = std::env::current_exe().unwrap_or_else(|error| panic!("where is this program? {error}"));
        let arguments = ["--nocapture", "--exact", &name];
        let ended =
            self.run_to_end(&binary, arguments, limit).unwrap_or_else(|complaint| panic!("{complaint}"));
        match ended.outcome.as_str() {
            "passed" => println!("{}", ended.printed),
            "" => panic!("{}", ended.complaint("ended without a word")),
            said => panic!("{}", ended.complaint(&format!("failed: {said}"))),
        }
    }

    /// Runs a program inside a machine, with this process's environment and folder. Gives the last of what it printed
    /// once it has ended with status 0.
    ///
    /// # Errors
    /// How it ended otherwise, with what it printed; or what is missing.
    pub(crate) fn run<'a>(
        &self,
        program: &Path,
        arguments: impl IntoIterator<Item = &'a str>,
        limit: Duration,
    ) -> Result<String, String> {
        let ended = self.run_to_end(program, arguments, limit)?;
        match ended.status {
            Some(0) => Ok(ended.printed),
            Some(status) => Err(ended.complaint(&format!("ended with status {status}"))),
            None => Err(ended.complaint("ended without a word")),
        }
    }

    /// Whether this process runs inside such a machine.
    pub(crate) fn is_inside(&self) -> bool {
        std::env::var_os(self.folder).is_some()
    }

    /// Boots a machine for a program, and waits for its end.
    fn run_to_end<'a>(
        &self,
        program: &Path,
        arguments: impl IntoIterator<Item = &'a str>,
        limit: Duration,
    ) -> Result<Ended, String> {
        let missing = (self.missing_packages)();
        if !missing.is_empty() {
            return Err(format!("{} takes: apt-get install {}", self.title, missing.join(" ")));
        }
        let machine = Machine::boot(self, program, arguments);
        machine.map_err(|error| format!("cannot boot a machine: {error}"))?.wait(limit)
    }
}

/// Runs the closure and leaves word of how it went. The test's own verdict would not do: a test that should panic
/// passes when the closure fails.
fn run_and_report(folder: &Path, test: impl FnOnce()) {
    let outcome = catch_unwind(AssertUnwindSafe(test));
    let word = outcome.as_ref().map_or_else(|panic| message(panic.as_ref()), |()| "passed".to_owned());
    fs::write(folder.join("outcome"), word).expect("the machine's folder can be written to");
    outcome.unwrap_or_else(|panic| resume_unwind(panic));
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}

/// A machine that runs, or ran.
struct Machine {
    processes: Processes,
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
    fn boot<'a>(
        kind: &Kind,
        program: &Path,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("portcullis-{}-{}", kind.name, lab_record::new_id()));
        let keep = std::env::var_os(kind.keep).is_some();
        fs::create_dir(&folder)?;
        let init = folder.join("init");
        fs::write(&init, [kind.init, INIT].concat())?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
        fs::write(folder.join("run"), script::of(program, arguments, (kind.folder, &folder))?)?;
        let console = File::create(folder.join("console"))?;
        let processes = (kind.start)(&folder, console).inspect_err(|_| {
            // Nothing is in it that the error does not tell.
            let _ = fs::remove_dir_all(&folder);
        })?;
        let mut watch = Command::new("sh");
        watch.args(["-c", WATCH, "portcullis-machine-watch", &processes.group().to_string()]);
        watch.arg(if keep { Path::new("") } else { &folder });
        watch.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { processes, watch: watch.spawn()?, folder, keep })
    }

    /// Waits for its end.
    fn wait(mut self, limit: Duration) -> Result<Ended, String> {
        let until = Instant::now() + limit;
        let in_time = loop {
            match self.processes.kernel.try_wait() {
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
        // The kernel may begin its line with the time.
        let lines = |(before, _): (&'_ str, _)| before.rfind('\n').unwrap_or_default();
        let text = text.rsplit_once(ENDS).map(lines).map_or(text, |end| &text[..end]);
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
        let Processes { kernel, leader } = &mut self.processes;
        let group = leader.as_ref().unwrap_or(kernel).id();
        // The group is its leader's, which was not waited for, so it is still its.
        if leader.is_some() || !matches!(kernel.try_wait(), Ok(Some(_))) {
            let group = libc::pid_t::try_from(group).expect("a process id fits");
            // SAFETY: no pointers are passed; whose group it is was said above.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        // Neither fails for a child that was not waited for; and if the watch is gone, its work is all that is left.
        let _ = kernel.wait();
        let _ = leader.as_mut().map(Child::wait);
        if let Some(mut stdin) = self.watch.stdin.take() {
            let _ = stdin.write_all(b"ended\n");
        }
        let _ = self.watch.wait();
    }
}
