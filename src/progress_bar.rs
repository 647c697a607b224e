//! Progress of commands that take long, on standard error.
//!
//! It appears after two seconds, on a terminal only, and disappears when the command prints its output. Log lines are written above
//! it.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The time after which the progress appears.
const DELAY: Duration = Duration::from_secs(2);

/// The time between two frames.
const FRAME: Duration = Duration::from_millis(120);

/// The progress that is shown, or will be.
static ACTIVE: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Shows a message with the elapsed time until [`finish`]. Replaces an earlier one.
pub(crate) fn start(message: &'static str) {
    start_with(ProgressBar::no_length(), message, "{spinner} {msg} ({elapsed})");
}

/// Shows a bar of `length` steps until [`finish`]. Replaces an earlier one.
pub(crate) fn start_steps(length: usize, message: &'static str) {
    start_with(ProgressBar::new(length as u64), message, "{msg} [{bar:30}] {pos}/{len} ({elapsed})");
}

fn start_with(bar: ProgressBar, message: &'static str, template: &str) {
    finish();
    if !io::stderr().is_terminal() {
        return;
    }
    bar.set_draw_target(ProgressDrawTarget::hidden());
    bar.set_style(ProgressStyle::with_template(template).expect("the templates are constants"));
    bar.set_message(message);
    *active() = Some(bar.clone());
    let appear = move || {
        thread::sleep(DELAY);
        // Held, so that the bar does not appear after it has finished.
        let active = active();
        if active.is_some() && !bar.is_finished() {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.enable_steady_tick(FRAME);
        }
    };
    // Without a thread there is no progress, and the command works as well.
    drop(thread::Builder::new().name("progress".into()).spawn(appear));
}

/// Completes a step.
pub(crate) fn step() {
    if let Some(bar) = active().as_ref() {
        bar.inc(1);
    }
}

/// Removes the progress from the terminal.
pub(crate) fn finish() {
    if let Some(bar) = active().take() {
        bar.finish_and_clear();
    }
}

/// Removes the progress before a command prints its output, unless the output goes elsewhere.
pub(crate) fn finish_before_output() {
    if active().is_some() && io::stdout().is_terminal() {
        finish();
    }
}

/// Writes something else to the terminal, above the progress.
pub(crate) fn suspend<T>(write: impl FnOnce() -> T) -> T {
    // A clone: the lock must not be held while `write` logs.
    let bar = active().clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

fn active() -> std::sync::MutexGuard<'static, Option<ProgressBar>> {
    ACTIVE.lock().unwrap_or_else(PoisonError::into_inner)
}
