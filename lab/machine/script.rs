//! What a machine is to run, as a shell's script: a program, where and with what this process has.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A script that becomes the program, in this process's folder and with its environment. `exported` is one more
/// variable for it.
pub(super) fn of<'a>(
    program: &Path,
    arguments: impl IntoIterator<Item = &'a str>,
    exported: (&str, &Path),
) -> io::Result<Vec<u8>> {
    let mut script = Vec::new();
    let is_plain = |name: &OsStr| name.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
    for (name, value) in std::env::vars_os().filter(|(name, _)| is_plain(name) && !stays(name)) {
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

/// Whether a variable is not for the machine: it has a place for temporary files of its own, and where cargo has
/// libraries looked for, every program that starts would look, too, which takes it longer than all the rest.
fn stays(variable: &OsStr) -> bool {
    variable == "TMPDIR" || variable == "LD_LIBRARY_PATH"
}

/// A word of a shell.
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
