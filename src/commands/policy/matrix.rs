//! Stub.
use std::io::Write;
use crate::config::{Config, Matrix};
/// Stub.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {}
/// Stub.
pub fn matrix(_: &Config, _: &Matrix, _: &mut dyn Write) -> Result<(), MatrixError> { Ok(()) }
