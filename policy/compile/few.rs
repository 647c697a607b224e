//! Lists that usually have one element.

/// A list of at least one element. One element needs no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Few<T> {
    One(T),
    /// More than one.
    Many(Box<[T]>),
}

impl<T: Clone> Few<T> {
    pub(super) fn as_slice(&self) -> &[T] {
        match self {
            Few::One(element) => std::slice::from_ref(element),
            Few::Many(elements) => elements,
        }
    }

    /// Appends an element.
    pub(super) fn push(&mut self, element: T) {
        *self = Few::Many(self.as_slice().iter().cloned().chain([element]).collect());
    }
}
