//! `portcullis policy`: what policies come to.

mod matrix;

pub use matrix::{MatrixError, matrix};
