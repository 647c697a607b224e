//! A compressed tar archive, written to a file that appears when it is complete, or to standard output.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use tar::{Builder, EntryType, Header};

use crate::output::Output;

/// An archive that is being written.
pub(super) struct Archive {
    builder: Builder<GzEncoder<Box<dyn Write>>>,
    /// The folder of all files in the archive.
    folder: String,
    created: Timestamp,
    /// The file under its temporary and its final name.
    file: Option<(PathBuf, PathBuf)>,
}

impl Archive {
    /// Creates an archive; `None` writes to standard output. Its files are in one folder.
    ///
    /// # Errors
    /// The file cannot be created, or standard output is a terminal.
    pub(super) fn create(path: Option<&Path>, folder: String, created: Timestamp) -> io::Result<Self> {
        let (out, file): (Box<dyn Write>, _) = match path {
            None if io::stdout().is_terminal() => {
                return Err(io::Error::other("standard output is a terminal; use -o FILE, or redirect it"));
            }
            None => (Box::new(Output::new(io::stdout())), None),
            Some(path) => {
                let mut partial = path.as_os_str().to_owned();
                partial.push(".partial");
                let partial = PathBuf::from(partial);
                // Only its user reads it: also without secrets it describes the cluster.
                let opened =
                    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
                (Box::new(opened) as Box<dyn Write>, Some((partial, path.to_owned())))
            }
        };
        let builder = Builder::new(GzEncoder::new(out, Compression::default()));
        Ok(Archive { builder, folder, created, file })
    }

    /// Adds a file.
    ///
    /// # Errors
    /// The archive cannot be written.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(self.created.as_second()).unwrap_or_default());
        self.builder.append_data(&mut header, format!("{}/{name}", self.folder), content)
    }

    /// Completes the archive; a file gets its final name.
    ///
    /// # Errors
    /// The archive cannot be written.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let file = self.file.take();
        let result = self.complete(file.as_ref());
        if let (Err(_), Some((partial, _))) = (&result, &file) {
            // The error that prevented the archive is reported.
            let _ = fs::remove_file(partial);
        }
        result
    }

    /// Removes the file.
    pub(super) fn discard(mut self) {
        if let Some((partial, _)) = self.file.take() {
            // Nothing refers to it.
            let _ = fs::remove_file(partial);
        }
    }

    fn complete(self, file: Option<&(PathBuf, PathBuf)>) -> io::Result<()> {
        self.builder.into_inner()?.finish()?.flush()?;
        let Some((partial, path)) = file else { return Ok(()) };
        File::open(partial)?.sync_all()?;
        fs::rename(partial, path)
    }
}
