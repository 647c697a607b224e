//! Fields of an object that cannot be understood: where, which value, what was expected, and the consequence.

use std::borrow::Cow;
use std::fmt;

/// One field of an object that cannot be understood. The rest of the object is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, as in `spec.ports[0].port`.
    pub field: String,
    /// The value of the field.
    pub value: String,
    /// What was expected.
    pub expected: Cow<'static, str>,
    /// What follows for the object; `None` where the field merely has no effect.
    pub consequence: Option<Cow<'static, str>>,
}

impl Problem {
    /// A problem of a field that merely has no effect.
    pub fn new(
        field: impl Into<String>,
        value: impl fmt::Display,
        expected: impl Into<Cow<'static, str>>,
    ) -> Self {
        Problem {
            field: field.into(),
            value: value.to_string(),
            expected: expected.into(),
            consequence: None,
        }
    }

    /// The same problem with its consequence for the object.
    #[must_use]
    pub fn with_consequence(self, consequence: impl Into<Cow<'static, str>>) -> Self {
        Problem { consequence: Some(consequence.into()), ..self }
    }

    /// What follows for the object.
    pub fn consequence(&self) -> &str {
        self.consequence.as_deref().unwrap_or("the field has no effect")
    }
}

/// States the consequence of each problem that has none yet.
pub(crate) fn state_consequence(problems: &mut [Problem], consequence: impl Into<Cow<'static, str>>) {
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
