//! The manifest source: folders and files that are changed in all usual ways.

mod changes;
mod test_source;
mod unreadable;
