//! Loading of kernel modules with `modprobe`.

use super::{ExternalProgram, ProgramErrorKind};

/// Runs `modprobe` with these arguments. The caller checks for the features of the modules.
///
/// # Errors
/// It is missing, failed, or did not end in time; the reason is returned.
pub fn modprobe<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    let program = ExternalProgram::new("modprobe").with_arguments(arguments);
    match program.output() {
        Ok((end, _)) if end.status.success() => Ok(()),
        Ok((end, _)) => Err(end.message.trim().replace('\n', "; ")),
        Err(error) => Err(match error.kind {
            ProgramErrorKind::CannotStart(error) => format!("cannot be run: {error}"),
            _ => error.to_string(),
        }),
    }
}
