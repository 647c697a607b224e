//! The programs that run now, and those that did not end when they were killed.

use std::collections::BTreeMap;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::error::ProgramErrorKind;

/// The programs of this process.
static PROGRAMS: Mutex<Programs> = Mutex::new(Programs {
    is_interrupted: false,
    groups: Vec::new(),
    hanging: BTreeMap::new(),
    timeouts: BTreeMap::new(),
});

struct Programs {
    is_interrupted: bool,
    /// The process groups of the programs that run.
    groups: Vec<Pid>,
    /// Programs that were killed and have not ended, by name. A program that hangs in the kernel is not started again, as each
    /// run would hang too.
    hanging: BTreeMap<String, Child>,
    timeouts: BTreeMap<String, u64>,
}

fn programs() -> MutexGuard<'static, Programs> {
    PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills all running programs, and lets no further one be started. For a process that is being stopped.
pub fn interrupt_all() {
    let mut programs = programs();
    programs.is_interrupted = true;
    programs.groups.iter().for_each(|group| kill(*group));
}

/// Returns how often each program was killed at its time limit.
pub fn timeouts() -> BTreeMap<String, u64> {
    programs().timeouts.clone()
}

/// Returns true after [`interrupt_all`].
pub(super) fn is_interrupted() -> bool {
    programs().is_interrupted
}

/// Starts a program in a process group of its own.
pub(super) fn start(name: &str, command: &mut Command) -> Result<Child, ProgramErrorKind> {
    let mut programs = programs();
    if programs.is_interrupted {
        return Err(ProgramErrorKind::Interrupted);
    }
    if let Some(child) = programs.hanging.get_mut(name) {
        if matches!(child.try_wait(), Ok(None)) {
            return Err(ProgramErrorKind::StillHanging { pid: child.id() });
        }
        programs.hanging.remove(name);
    }
    let child = command.spawn().map_err(ProgramErrorKind::CannotStart)?;
    programs.groups.push(Pid::from_child(&child));
    Ok(child)
}

/// Returns true if a program has ended. Its process ID stays in use until [`end`].
pub(super) fn has_ended(child: &Child) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::Pid(Pid::from_child(child)), options), Ok(None))
}

/// Kills what is left of the process group of a program that has ended, and releases its process ID.
pub(super) fn end(child: &mut Child) -> std::io::Result<std::process::ExitStatus> {
    let mut programs = programs();
    let group = Pid::from_child(child);
    kill(group);
    programs.groups.retain(|running| *running != group);
    child.wait()
}

/// Kills a running program with its process group.
pub(super) fn kill_group(child: &Child) {
    kill(Pid::from_child(child));
}

/// Counts a program that was killed at its time limit.
pub(super) fn count_timeout(name: &str) {
    *programs().timeouts.entry(name.to_owned()).or_default() += 1;
}

/// Gives up on a program that was killed and has not ended.
pub(super) fn abandon(name: &str, child: Child) {
    let mut programs = programs();
    let group = Pid::from_child(&child);
    programs.groups.retain(|running| *running != group);
    programs.hanging.insert(name.to_owned(), child);
}

fn kill(group: Pid) {
    // Fails if all its processes have ended.
    let _ = kill_process_group(group, Signal::KILL);
}
