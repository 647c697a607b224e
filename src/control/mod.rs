//! Controllers, which program the kernel from the cluster's objects, and the loop that runs them.
//!
//! ```text
//! Event ─► Index ─changes─► Controller (dirty set, Schedule) ─Work─► thread ─► kernel
//!                               │  ▲                            │
//!                  Status ◄─────┘  └──── result, drift ◄────────┘
//!        --once, health, metrics, Events
//! ```
//!
//! While a controller's work runs, changes are collected for its next sync.

mod controller;
mod event_loop;
mod exit;
mod mailbox;
mod observer;
mod progress;
mod schedule;
mod status;
mod work;

pub(crate) use controller::Controller;
pub(crate) use event_loop::EventLoop;
pub(crate) use exit::{Exit, StopReason};
pub(crate) use mailbox::{Mailbox, Notifier, Wake};
pub(crate) use observer::Observer;
pub(crate) use progress::{ITERATION_LIMIT, Job, Progress};
pub(crate) use schedule::{Due, Schedule};
pub(crate) use status::Status;
pub(crate) use work::{Pending, Work};
