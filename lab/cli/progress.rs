//! Progress of `run` and `up`, on a terminal only.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The time between two frames.
const FRAME: Duration = Duration::from_millis(120);

/// A line on standard error that shows what is done. It disappears at the end.
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// Shows a message. It does not move: a thread that starts before the lab blocks signals would receive them.
    pub(crate) fn start(message: &'static str) -> Self {
        if !io::stderr().is_terminal() {
            return Progress(None);
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
        bar.set_style(style.expect("the template is a constant"));
        bar.set_message(message);
        bar.tick();
        Progress(Some(bar))
    }

    /// Shows another message, with the time. Signals must be blocked.
    pub(crate) fn next(&self, message: &'static str) {
        if let Some(bar) = &self.0 {
            bar.set_message(message);
            bar.enable_steady_tick(FRAME);
        }
    }

    /// Prints something above the line.
    pub(crate) fn suspend(&self, print: impl FnOnce()) {
        match &self.0 {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Removes the line, before output.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
