//! System calls on the files of the store. Tests interrupt the process, or fail a call, before any of those that change a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

/// Largest file that is read, in bytes. A pod with 500 host ports takes half of it.
const MAX_FILE_SIZE: u64 = 128 * 1024;

/// Whether a system call needs space in the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Needed,
    NotNeeded,
}

/// Creates a folder and those above it, unless they exist.
pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => fs::create_dir_all(path),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        created => created,
    }
}

/// Creates or replaces a file, and returns it open. The content is complete only if this succeeds.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<File> {
    fault(Space::Needed)?;
    let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
    fault(Space::Needed)?;
    file.write_all(content)?;
    Ok(file)
}

/// Replaces the content of a small file in place, without a moment in which it takes more space.
pub(super) fn overwrite(path: &Path, content: &[u8]) -> io::Result<()> {
    fault(Space::Needed)?;
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    fault(Space::Needed)?;
    file.write_all(content)
}

/// Creates a hard link; fails with `AlreadyExists` if there is a file.
pub(super) fn link(original: &Path, link: &Path) -> io::Result<()> {
    fault(Space::Needed)?;
    fs::hard_link(original, link)
}

/// Renames a file, and replaces one of that name.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fault(Space::NotNeeded)?;
    fs::rename(from, to)
}

/// Removes a file; returns whether there was one.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    fault(Space::NotNeeded)?;
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads a file; `None` if there is none.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match File::open(path) {
        Ok(file) => read_open(&file).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads an open file from its position.
pub(super) fn read_open(file: &File) -> io::Result<Vec<u8>> {
    // Most files are read in one call.
    let mut content = Vec::with_capacity(1024);
    file.take(MAX_FILE_SIZE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE_SIZE {
        return Err(io::Error::new(
            ErrorKind::FileTooLarge,
            format!("file is larger than {MAX_FILE_SIZE} bytes"),
        ));
    }
    Ok(content)
}

/// Calls a function with the name of each file of a folder that is valid UTF-8. A folder that does not exist is empty.
pub(super) fn for_each_name(folder: &Path, mut function: impl FnMut(&str)) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        if let Some(name) = entry?.file_name().to_str() {
            function(name);
        }
    }
    Ok(())
}

#[cfg(not(test))]
const fn fault(_: Space) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
use super::tests::fault_injection::fault;
