//! Parts of the log: the journal of systemd, or files.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use portcullis_modes::external_program::{ExternalProgram, ProgramErrorKind};

use super::part::{MAX_PART, Part, PartBuffer, PartError};

/// The number of lines of the journal.
const LINES: &str = "20000";

/// Returns the parts of the log.
pub(super) fn parts(files: &[PathBuf], unit: &str) -> Vec<Part> {
    if files.is_empty() {
        let unit = unit.to_owned();
        return vec![Part::new(
            "log.txt",
            "recent lines of the daemon's log, from the journal",
            move |out| journal(&unit, out),
        )];
    }
    let part = |(index, path): (usize, &PathBuf)| {
        let name = if index == 0 { "log.txt".to_owned() } else { format!("log-{}.txt", index + 1) };
        let path = path.clone();
        Part::new(name, "end of a file of the daemon's log", move |out| match path.to_str() {
            Some("-") => tail_of_input(out),
            _ => tail(&path, out),
        })
    };
    files.iter().enumerate().map(part).collect()
}

fn journal(unit: &str, out: &mut PartBuffer) -> Result<(), PartError> {
    let arguments =
        ["--unit", unit, "--lines", LINES, "--no-pager", "--output", "short-iso-precise", "--quiet"];
    let mut text = String::new();
    let program = ExternalProgram::new("journalctl").with_arguments(arguments);
    let end = program.read_lines(&mut |line| {
        text.push_str(line.trim_end_matches('\n'));
        text.push('\n');
    });
    let other = "; pass the files of the log with --log-file";
    match end {
        Err(error) if matches!(error.kind, ProgramErrorKind::CannotStart(_)) => {
            Err(PartError::Failed(format!("there is no journalctl{other}")))
        }
        Err(error) => Err(PartError::failed(error)),
        Ok(end) if !end.status.success() => {
            Err(PartError::Failed(format!("journalctl: {}{other}", end.message)))
        }
        Ok(_) if text.trim().is_empty() => {
            Err(PartError::Failed(format!("the journal has no lines of unit {unit}{other}")))
        }
        Ok(_) => Ok(out.write_tail(text.as_bytes())?),
    }
}

/// Writes the end of standard input.
fn tail_of_input(out: &mut PartBuffer) -> Result<(), PartError> {
    let (mut kept, mut chunk) = (Vec::new(), vec![0; 64 * 1024]);
    let mut input = io::stdin().lock();
    loop {
        match input.read(&mut chunk)? {
            0 => break,
            length => kept.extend_from_slice(&chunk[..length]),
        }
        if kept.len() > 2 * MAX_PART {
            kept.drain(..kept.len() - MAX_PART - 64 * 1024);
        }
    }
    if kept.is_empty() {
        return Err(PartError::failed("standard input is empty"));
    }
    Ok(out.write_tail(&kept)?)
}

/// Writes the end of a file.
fn tail(path: &Path, out: &mut PartBuffer) -> Result<(), PartError> {
    let failed = |error: std::io::Error| PartError::Failed(format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    // One line more than fits, so that the part starts with a whole line.
    let start = length.saturating_sub(MAX_PART as u64 + 64 * 1024);
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_PART as u64 + 64 * 1024).read_to_end(&mut bytes).map_err(failed)?;
    Ok(out.write_tail(&bytes)?)
}
