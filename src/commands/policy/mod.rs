//! `portcullis policy`: what policies come to.

mod cells;
mod equivalence_classes;
mod groups;
mod limits;
mod matrix;
mod pod_selection;
mod text;

pub use matrix::{MatrixError, matrix, of_index};
