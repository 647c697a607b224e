//! `portcullis policy`: what policies come to.

mod choice;
mod grid;
mod groups;
mod matrix;
mod text;

pub use matrix::{MatrixError, matrix, of_index};
