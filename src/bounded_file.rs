//! Reading of files with a limit of their size.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// The largest configuration file, kubeconfig, host file, certificate or key, in bytes. A ConfigMap or Secret has at most 1 MiB.
pub(crate) const MAX_CONFIGURATION: usize = 1 << 20;

/// The longest wait for data of a pipe or terminal.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a file of at most `max` bytes. It may also be a pipe of a shell, such as `/dev/stdin`, which must not be silent for more than
/// 10 seconds.
///
/// # Errors
/// The file cannot be read, is larger, or is a named pipe, socket or folder, which could block for ever.
pub(crate) fn read(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    if !is_regular_or_inherited(&file)? {
        return Err(not_regular());
    }
    read_all(file, max)
}

/// Reads a regular file of at most `max` bytes. Other files may block for ever.
///
/// # Errors
/// The file cannot be read, is larger, or is a pipe, socket, device or folder.
pub(crate) fn read_regular(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    // It may have taken the place of a regular file after it was listed.
    let file = open(path)?;
    if !file.metadata()?.is_file() {
        return Err(not_regular());
    }
    read_all(file, max)
}

/// Opens a file without waiting for a process that writes into a named pipe.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Returns true for a regular file, a device, and a pipe that this process inherited: a named pipe has a file system of its own.
fn is_regular_or_inherited(file: &File) -> io::Result<bool> {
    let file_type = file.metadata()?.file_type();
    if file_type.is_fifo() {
        return Ok(rustix::fs::fstatfs(file)?.f_type == PIPEFS_MAGIC);
    }
    // Reading a folder fails with an error of its own.
    Ok(!file_type.is_socket())
}

/// The magic number of the file system of pipes without a name (linux/magic.h).
const PIPEFS_MAGIC: rustix::fs::FsWord = 0x5049_5045;

/// Reads a file that does not block to its end.
fn read_all(mut file: File, max: usize) -> io::Result<Vec<u8>> {
    let (mut bytes, start) = (Vec::new(), Instant::now());
    loop {
        // One byte more than the limit shows that there are more.
        let left = (max + 1).saturating_sub(bytes.len()) as u64;
        match (&mut file).take(left).read_to_end(&mut bytes) {
            Ok(_) if bytes.len() > max => return Err(too_large(max)),
            Ok(_) => return Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let left = READ_TIMEOUT.saturating_sub(start.elapsed());
        let timeout = Timespec::try_from(left).expect("a few seconds");
        match poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => {
                let message = format!("no end of the data within {} s", READ_TIMEOUT.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
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

/// Returns an error if a file that another library reads is larger than `max` bytes, or could block that library for ever. A file that
/// cannot be examined is left to that library.
///
/// # Errors
/// The file is larger, or is a named pipe, socket or device.
pub(crate) fn check_size(path: &Path, max: usize) -> io::Result<()> {
    let Ok(metadata) = path.metadata() else { return Ok(()) };
    let is_pipe = metadata.file_type().is_fifo();
    if metadata.len() > max as u64 {
        Err(too_large(max))
    } else if metadata.is_file() || metadata.is_dir() || (is_pipe && is_regular_or_inherited(&open(path)?)?) {
        // The error for a folder is that of the library.
        Ok(())
    } else {
        Err(not_regular())
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
        assert_eq!(read(Path::new("/dev/null"), 1).expect("an empty file"), b"");
        assert!(read(folder.path(), 1).is_err());
    }

    #[test]
    fn named_pipe_is_an_error_and_a_pipe_of_the_shell_is_read() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let path = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        // With and without a process that has it open for writing.
        for writer in [None, Some(OpenOptions::new().read(true).write(true).open(&path).expect("a pipe"))] {
            let errors = [read(&path, 1).expect_err("a pipe"), check_size(&path, 1).expect_err("a pipe")];
            for error in errors {
                assert!(error.to_string().contains("not a regular file"), "{error}");
            }
            drop(writer);
        }
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        assert!(read(&socket, 1).is_err() && check_size(&socket, 1).is_err());
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        check_size(Path::new(&path), 100).expect("a pipe without a name");
        let thread = std::thread::spawn(move || {
            for part in ["a", "b", "c"] {
                std::thread::sleep(Duration::from_millis(20));
                io::Write::write_all(&mut writer, part.as_bytes()).expect("it is read");
            }
        });
        assert_eq!(read(Path::new(&path), 100).expect("it ends"), b"abc");
        thread.join().expect("the writer");
    }
}
