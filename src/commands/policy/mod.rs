//! `portcullis policy`: the effect of policies on connections.

mod cells;
mod equivalence_classes;
mod groups;
mod limits;
mod matrix;
mod pod_selection;
mod text;

pub(crate) use matrix::PolicyMatrix;
pub use matrix::{MatrixError, matrix, matrix_of_index};
