//! `portcullis policy`: what policies come to.

mod alike;
mod choice;
mod grid;
mod groups;
mod limits;
mod matrix;
mod text;

pub use matrix::{MatrixError, matrix, of_index};
