//! Shell script that runs a program inside a machine with this process's environment and working directory.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Returns a script that executes the program, with this process's working directory and environment, and with one more
/// variable, `exported`.
pub(super) fn for_program<'a>(
    program: &Path,
    arguments: impl IntoIterator<Item = &'a str>,
    exported: (&str, &Path),
) -> io::Result<Vec<u8>> {
    let mut script = Vec::new();
    let is_plain = |name: &OsStr| name.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
    for (name, value) in std::env::vars_os().filter(|(name, _)| is_plain(name) && !is_host_specific(name)) {
        let tail: &[u8] = if name == "PATH" { b"\"$PATH:\"" } else { b"" };
        script.extend([b"export ", name.as_bytes(), b"=", tail, &quoted(&value), b"\n"].concat());
    }
    let (name, value) = exported;
    script.extend([b"export ", name.as_bytes(), b"=", &quoted(value.as_os_str()), b"\n"].concat());
    script.extend([b"cd ", &quoted(std::env::current_dir()?.as_os_str())[..], b" || exit\nexec "].concat());
    script.extend(quoted(program.as_os_str()));
    for argument in arguments {
        script.push(b' ');
        script.extend(quoted(OsStr::new(argument)));
    }
    script.push(b'\n');
    Ok(script)
}

/// Returns true for variables that are not exported: the machine has its own folder for temporary files, and with cargo's
/// library path, every program that starts would search it, which takes longer than all the rest.
fn is_host_specific(variable: &OsStr) -> bool {
    variable == "TMPDIR" || variable == "LD_LIBRARY_PATH"
}

/// Quotes a word for a shell.
fn quoted(word: &OsStr) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend(br"'\''"),
            byte => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}
