//! The end of this process on SIGTERM and SIGINT, within ten seconds whatever it is doing.
//!
//! ```text
//! signal ─┬─ daemon: the loop stops and waits for syncs ── 5 s ──► tools are killed ── 7.5 s ──► the process exits
//!         ├─ daemon that has not started its loop: tools are killed immediately
//!         └─ other commands: tools are killed, and the signal ends the process
//! ```
//!
//! The rules in the kernel are complete at any time: each restore and transaction is atomic, and each is written so that the
//! next start can continue from it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use portcullis_modes::external_program;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::logging;

/// The time that a running sync gets to end by itself.
const SYNC_LIMIT: Duration = Duration::from_secs(5);

/// The time after which the loop no longer waits for a sync.
const DRAIN_LIMIT: Duration = Duration::from_millis(6_500);

/// The time after which the process exits in any case. A last message may take two seconds more.
const EXIT_LIMIT: Duration = Duration::from_millis(7_500);

/// A request to end the process.
#[derive(Clone, Debug)]
pub struct Termination {
    signals: watch::Receiver<Option<Instant>>,
    has_loop: Arc<AtomicBool>,
}

/// The commands by their behaviour on signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnSignal {
    /// The loop stops first.
    Stop,
    /// The process ends immediately.
    End,
}

impl Termination {
    /// Handles SIGTERM and SIGINT on a thread of its own, so that nothing that blocks can delay them.
    ///
    /// # Errors
    /// The handlers or the thread cannot be created.
    pub(crate) fn handle_signals(on_signal: OnSignal) -> io::Result<Termination> {
        let (sender, signals) = watch::channel(None);
        let has_loop = Arc::new(AtomicBool::new(false));
        let termination = Termination { signals, has_loop: Arc::clone(&has_loop) };
        let (installed, is_installed) = sync_channel(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                if let Err(error) = handle(on_signal, &sender, &has_loop, &installed).await {
                    // Fails if the start was reported.
                    let _ = installed.send(Err(error));
                }
            });
        })?;
        is_installed.recv().map_err(|_| io::Error::other("the signal thread ended"))??;
        Ok(termination)
    }

    /// Waits for the request.
    pub(crate) async fn requested(&self) -> Instant {
        let mut signals = self.signals.clone();
        match signals.wait_for(Option::is_some).await.map(|at| *at) {
            Ok(Some(at)) => at,
            // Without the thread there are no requests.
            _ => std::future::pending().await,
        }
    }

    /// Waits for the request, and then until the loop must not wait for syncs any longer.
    pub(crate) async fn drain_limit(&self) {
        let requested = self.requested().await;
        sleep_until(requested + DRAIN_LIMIT).await;
    }

    /// Waits for the request while the loop has not started. Afterwards the loop handles it.
    pub(crate) async fn requested_before_loop(&self) {
        self.requested().await;
        if self.has_loop.load(Relaxed) {
            std::future::pending().await
        }
    }

    /// Returns true after the request.
    pub(crate) fn is_requested(&self) -> bool {
        self.signals.borrow().is_some()
    }

    /// Notes that the loop handles requests from now on.
    pub(crate) fn loop_started(&self) {
        self.has_loop.store(true, Relaxed);
    }
}

async fn handle(
    on_signal: OnSignal,
    requests: &watch::Sender<Option<Instant>>,
    has_loop: &AtomicBool,
    installed: &SyncSender<io::Result<()>>,
) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut next = async || {
        tokio::select! {
            _ = terminate.recv() => libc::SIGTERM,
            _ = interrupt.recv() => libc::SIGINT,
        }
    };
    // Fails only if the process ends.
    let _ = installed.send(Ok(()));
    let number = next().await;
    if on_signal == OnSignal::End {
        external_program::interrupt_all();
        end_by_signal(number);
    }
    let start = Instant::now();
    requests.send_replace(Some(start));
    if !has_loop.load(Relaxed) {
        external_program::interrupt_all();
    }
    let is_repeated = tokio::select! {
        _ = next() => true,
        () = sleep_until(start + SYNC_LIMIT) => false,
    };
    external_program::interrupt_all();
    if !is_repeated {
        tracing::warn!("a sync or request has not ended within {SYNC_LIMIT:?}; interrupting it");
        tokio::select! {
            _ = next() => {}
            () = sleep_until(start + EXIT_LIMIT) => {}
        }
    }
    logging::final_message("portcullis: exiting before everything has ended; the rules stay as last written");
    std::process::exit(128 + number)
}

/// Ends this process as if it did not handle the signal.
fn end_by_signal(number: i32) -> ! {
    // SAFETY: both calls take numbers only.
    unsafe {
        libc::signal(number, libc::SIG_DFL);
        libc::raise(number);
    }
    // The first process of a PID namespace is not ended by a signal.
    std::process::exit(128 + number)
}
