//! Reports of the progress of programs.

use std::cell::RefCell;
use std::sync::Arc;

/// A function that is called when a program has made progress.
type Report = Arc<dyn Fn() + Send + Sync>;

thread_local! {
    static REPORT: RefCell<Option<Report>> = const { RefCell::new(None) };
}

/// Calls `run`, and `report` about once a second while a program that it runs uses processor time, takes or prints something.
pub fn report_progress<T>(report: &Report, run: impl FnOnce() -> T) -> T {
    let before = REPORT.replace(Some(Arc::clone(report)));
    let result = run();
    REPORT.set(before);
    result
}

/// Reports that the program that this thread runs has made progress.
pub(super) fn advanced() {
    // Without the borrow while it is called.
    let report = REPORT.with_borrow(Clone::clone);
    if let Some(report) = report {
        report();
    }
}
