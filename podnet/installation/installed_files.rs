//! The installed files of a node.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::configuration::{ConfigurationList, FILE, PLUGIN};
use super::error::InstallationError;
use super::other_configurations::{PrecedingConfiguration, preceding};
use super::{atomic_file, plugin_binary, readiness};
use crate::cni::LOOPBACK;

/// Only root reads the configuration, as security benchmarks ask for.
const CONFIGURATION_MODE: u32 = 0o600;

/// The folders of an installation, as this process sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Folder of CNI plugins.
    pub bin_dir: PathBuf,
    /// Folder of CNI configurations.
    pub conf_dir: PathBuf,
    /// Folder of the plugin's records.
    pub state_dir: PathBuf,
}

impl Default for Installation {
    /// Returns the folders of a node with the default settings.
    fn default() -> Self {
        Installation {
            bin_dir: "/opt/cni/bin".into(),
            conf_dir: "/etc/cni/net.d".into(),
            state_dir: crate::STATE_DIR.into(),
        }
    }
}

/// A file that [`Installation::remove`] removed, or would remove.
pub type RemovedFile = PathBuf;

impl Installation {
    /// Installs the plugin, a copy of the binary `source` (of this process: `/proc/self/exe`), or replaces another version in one step.
    /// Returns true if it was not there.
    ///
    /// # Errors
    /// The binary cannot be read, or the folder cannot be written.
    pub fn install_plugin(&self, source: &Path) -> Result<bool, InstallationError> {
        plugin_binary::install(source, &self.plugin())
    }

    /// Gives the plugin the name `loopback` as well, unless there is a plugin of that name: containerd starts no pods without it.
    /// Returns true if it was not there.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn install_loopback(&self) -> Result<bool, InstallationError> {
        let path = self.loopback();
        if path.symlink_metadata().is_ok() {
            return Ok(false);
        }
        match symlink(PLUGIN, &path) {
            Ok(()) => Ok(true),
            // Another program installed it at this moment.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(InstallationError::new("link", &path)(error)),
        }
    }

    /// Writes the configuration in one step, unless it is there. Returns true if it was written. The plugin must be installed, and
    /// the network be ready.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write_configuration(&self, list: &ConfigurationList) -> Result<bool, InstallationError> {
        let text = list.to_json();
        atomic_file::write(&self.configuration(), &mut text.as_bytes(), CONFIGURATION_MODE, |path| {
            atomic_file::has_contents(path, text.as_bytes(), CONFIGURATION_MODE)
        })
    }

    /// Creates the folder of the configuration, which a daemon with few privileges may not.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn create_configuration_folder(&self) -> Result<(), InstallationError> {
        fs::create_dir_all(&self.conf_dir).map_err(InstallationError::new("create folder", &self.conf_dir))
    }

    /// Tells the plugin why the pod network is not ready; `None` if it is. Returns true if that changed.
    ///
    /// # Errors
    /// The folder of the plugin's records cannot be written.
    pub fn set_not_ready(&self, reason: Option<&str>) -> Result<bool, InstallationError> {
        readiness::set(&self.state_dir, reason)
    }

    /// Returns the configuration of another network that runtimes use instead.
    pub fn preceding_configuration(&self) -> Option<PrecedingConfiguration> {
        preceding(&self.conf_dir)
    }

    /// Removes the configuration and the plugin with its other name, in this order, or only finds them if `dry_run`. Returns the files, and the errors. Records
    /// of pods stay: they hold addresses of pods that still run.
    pub fn remove(&self, dry_run: bool) -> (Vec<RemovedFile>, Vec<InstallationError>) {
        let (mut removed, mut errors) = (Vec::new(), Vec::new());
        let loopback = Some(self.loopback()).filter(|path| is_own_link(path));
        for path in [self.configuration()].into_iter().chain(loopback).chain([self.plugin()]) {
            if dry_run {
                removed.extend(path.symlink_metadata().is_ok().then_some(path));
                continue;
            }
            match atomic_file::remove(&path) {
                Ok(true) => removed.push(path),
                Ok(false) => {}
                Err(error) => errors.push(error),
            }
        }
        (removed, errors)
    }

    /// Returns the path of the plugin.
    pub fn plugin(&self) -> PathBuf {
        self.bin_dir.join(PLUGIN)
    }

    /// Returns the path of the plugin `loopback`, of this or another program.
    pub fn loopback(&self) -> PathBuf {
        self.bin_dir.join(LOOPBACK)
    }

    /// Returns the path of the configuration.
    pub fn configuration(&self) -> PathBuf {
        self.conf_dir.join(FILE)
    }
}

/// Returns true if a path is a link to the plugin.
fn is_own_link(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| target == Path::new(PLUGIN))
}
