//! Problems: invalid fields of an object, with the expected value and the consequence.

use std::borrow::Cow;
use std::fmt;

use crate::excerpt::excerpt;

/// The number of bytes of a field's path, and of its value.
const MAX_TEXT: usize = 300;

/// An invalid field of an object. The rest of the object is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The path of the field, as in `spec.ports[0].port`.
    pub field: String,
    /// The value of the field.
    pub value: String,
    /// The expected value.
    pub expected: Cow<'static, str>,
    /// The consequence for the object; `None` if the field just has no effect.
    pub consequence: Option<Cow<'static, str>>,
}

impl Problem {
    /// Returns a problem with a field that has no effect.
    pub fn new(
        field: impl Into<String>,
        value: impl fmt::Display,
        expected: impl Into<Cow<'static, str>>,
    ) -> Self {
        Problem {
            field: excerpt(field, MAX_TEXT),
            value: excerpt(value.to_string(), MAX_TEXT),
            expected: expected.into(),
            consequence: None,
        }
    }

    /// Adds the consequence for the object.
    #[must_use]
    pub fn with_consequence(self, consequence: impl Into<Cow<'static, str>>) -> Self {
        Problem { consequence: Some(consequence.into()), ..self }
    }

    /// Returns the consequence for the object.
    pub fn consequence(&self) -> &str {
        self.consequence.as_deref().unwrap_or("the field has no effect")
    }
}

/// Adds the consequence to each problem that has none.
pub(crate) fn set_consequence(problems: &mut [Problem], consequence: impl Into<Cow<'static, str>>) {
    let consequence = consequence.into();
    for problem in problems {
        problem.consequence.get_or_insert_with(|| consequence.clone());
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { field, value, expected, .. } = self;
        write!(f, "{field}: {value:?} is not {expected}; {}", self.consequence())
    }
}
