//! Reading of files with a limit of their size.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The largest configuration file, kubeconfig, host file, certificate or key, in bytes. A ConfigMap or Secret has at most 1 MiB.
pub(crate) const MAX_CONFIGURATION: usize = 1 << 20;

/// Reads a file of at most `max` bytes.
///
/// # Errors
/// The file cannot be read, or is larger.
pub(crate) fn read(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than the limit shows that there are more.
    File::open(path)?.take(max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max { Err(too_large(max)) } else { Ok(bytes) }
}

/// Reads a regular file of at most `max` bytes. Other files may block for ever.
///
/// # Errors
/// The file cannot be read, is larger, or is a pipe, socket, device or folder.
pub(crate) fn read_regular(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    // It may have taken the place of a regular file after it was listed.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(not_regular());
    }
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max { Err(too_large(max)) } else { Ok(bytes) }
}

/// Returns the error for a file that is not regular.
pub(crate) fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file (a pipe, socket or device)")
}

/// Reads a file of at most `max` bytes of UTF-8.
///
/// # Errors
/// The file cannot be read, is larger, or is not UTF-8.
pub(crate) fn read_to_string(path: &Path, max: usize) -> io::Result<String> {
    let text = String::from_utf8(read(path, max)?);
    text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8"))
}

/// Returns an error if a file that another library reads is larger than `max` bytes. A file that cannot be examined is left to that
/// library.
///
/// # Errors
/// The file is larger.
pub(crate) fn check_size(path: &Path, max: usize) -> io::Result<()> {
    match path.metadata() {
        Ok(metadata) if metadata.len() > max as u64 => Err(too_large(max)),
        _ => Ok(()),
    }
}

fn too_large(max: usize) -> io::Error {
    let limit = if max >= 1 << 20 { format!("{} MiB", max >> 20) } else { format!("{} KiB", max >> 10) };
    io::Error::new(io::ErrorKind::FileTooLarge, format!("the file is too large, expected at most {limit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_up_to_the_limit_are_read() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let path = folder.path().join("a");
        for (size, is_read) in [(0, true), (2048, true), (2049, false), (1 << 20, false)] {
            std::fs::write(&path, vec![b'x'; size]).expect("it can be written");
            assert_eq!(read(&path, 2048).map(|bytes| bytes.len()).ok(), is_read.then_some(size));
            assert_eq!(check_size(&path, 2048).is_ok(), is_read, "{size}");
        }
        let error = read_to_string(&path, 2048).expect_err("it is too large").to_string();
        assert_eq!(error, "the file is too large, expected at most 2 KiB");
        assert!(
            read_regular(Path::new("/dev/zero"), 1)
                .expect_err("a device")
                .to_string()
                .contains("not a regular file")
        );
        // A file without an end.
        assert!(read(Path::new("/dev/zero"), 1 << 20).is_err());
    }
}
