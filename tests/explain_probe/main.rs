//! `portcullis explain --probe` with packets of a real kernel, in a lab.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cases;
mod leftovers;
mod testbed;
