//! An exec plugin of a kubeconfig: a script that tests replace.
#![allow(dead_code, reason = "each test file uses its own part of it")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;

use crate::api_server::ApiServer;

/// A time in the past, which a plugin's issuer whose clock is wrong could return.
pub(crate) const PAST: &str = "2020-01-01T00:00:00Z";

/// A plugin in a folder. Each run adds a line to the file `runs`.
pub(crate) struct Plugin {
    pub(crate) folder: TempDir,
}

impl Plugin {
    pub(crate) fn new(script: &str) -> Self {
        let plugin = Plugin { folder: tempfile::tempdir().expect("a folder") };
        plugin.set(script);
        plugin
    }

    /// Replaces the plugin's script. The kubeconfig stays as it is.
    pub(crate) fn set(&self, script: &str) {
        let path = self.folder.path().join("plugin");
        let new = self.folder.path().join("new");
        let runs = self.folder.path().join("runs");
        fs::write(&new, format!("#!/bin/sh\necho >> {}\n{script}\n", runs.display()))
            .expect("it can be written");
        fs::set_permissions(&new, Permissions::from_mode(0o755)).expect("it can be changed");
        fs::rename(new, path).expect("it can be renamed");
    }

    /// Returns the number of runs.
    pub(crate) fn runs(&self) -> usize {
        fs::read_to_string(self.folder.path().join("runs")).map_or(0, |text| text.lines().count())
    }

    /// Returns a kubeconfig that names the plugin relative to itself.
    pub(crate) fn kubeconfig(&self, server: &ApiServer) -> PathBuf {
        let path = server.kubeconfig(self.folder.path(), "");
        let text = fs::read_to_string(&path).expect("it is there");
        let exec = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin", "interactiveMode": "IfAvailable",
            "provideClusterInfo": true,
        });
        fs::write(&path, text.replace("\"token\":\"\"", &format!("\"exec\":{exec}")))
            .expect("it can be written");
        path
    }
}

/// Returns a script that prints a token that expires at a time, as `date` understands it; never if that is empty.
pub(crate) fn prints(token: &str, expires: &str) -> String {
    let time = match expires {
        "" => String::new(),
        expires => format!(", \"expirationTimestamp\": \"$(date -u -d '{expires}' +%Y-%m-%dT%H:%M:%SZ)\""),
    };
    format!(
        "cat <<END\n{{\"kind\": \"ExecCredential\", \"apiVersion\": \"client.authentication.k8s.io/v1\", \
         \"status\": {{\"token\": \"{token}\"{time}}}}}\nEND"
    )
}
