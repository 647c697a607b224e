//! Definition of a setting: its names, its field in [`Settings`], its flag and help.

use super::field_ref::FieldRef;
use super::settings::Settings;

/// A row of [`setting_table`](super::setting_table).
pub(super) struct Setting {
    /// The path in a `KubeProxyConfiguration`, such as `iptables.masqueradeBit`.
    pub(super) yaml: Option<&'static str>,
    /// The path in our TOML, such as `iptables.masquerade-bit`.
    pub(super) toml: Option<&'static str>,
    pub(super) flag: Option<Flag>,
    pub(super) field_ref: fn(&mut Settings) -> FieldRef<'_>,
    /// In a `KubeProxyConfiguration`, zero (`""`, `0`, `0s`) means the default.
    pub(super) zero_is_default: bool,
    /// Reason why the setting has no effect, for settings accepted only for compatibility.
    pub(super) unused: Option<&'static str>,
}

/// A command-line flag.
#[derive(Clone, Copy)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) short: Option<char>,
    /// The type's name in kube-proxy's help, where it isn't that of the field_ref.
    pub(super) type_name: Option<&'static str>,
    pub(super) with_config_file: WithConfigFile,
    /// Hidden in the help: kube-proxy does not show it either, or it is an alias.
    pub(super) hidden: bool,
    pub(super) help: &'static str,
}

/// Effect of a flag if `--config` is given as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WithConfigFile {
    /// The file overrides the flag. Upstream, this applies to all flags that have a field in the file, although the
    /// help of only some documents it.
    Ignored,
    /// The flag overrides the file. Upstream: `--hostname-override`, the logging flags, and the flags that have no
    /// field in the file (`--master`, `--cleanup`, `--init-only`, `--write-config-to`).
    Applied,
}

impl Setting {
    pub(super) const fn new(field_ref: fn(&mut Settings) -> FieldRef<'_>) -> Self {
        Self { yaml: None, toml: None, flag: None, field_ref, zero_is_default: false, unused: None }
    }

    pub(super) const fn yaml(mut self, path: &'static str) -> Self {
        self.yaml = Some(path);
        self
    }

    pub(super) const fn toml(mut self, path: &'static str) -> Self {
        self.toml = Some(path);
        self
    }

    /// Adds a flag that is ignored if a configuration file is given.
    pub(super) const fn flag(self, name: &'static str, help: &'static str) -> Self {
        self.any_flag(name, WithConfigFile::Ignored, help)
    }

    /// Adds a flag that overrides a configuration file.
    pub(super) const fn override_flag(self, name: &'static str, help: &'static str) -> Self {
        self.any_flag(name, WithConfigFile::Applied, help)
    }

    const fn any_flag(
        mut self,
        name: &'static str,
        with_config_file: WithConfigFile,
        help: &'static str,
    ) -> Self {
        self.flag = Some(Flag { name, short: None, type_name: None, with_config_file, hidden: false, help });
        self
    }

    /// Replaces the flag just added.
    const fn with_flag(mut self, flag: Flag) -> Self {
        self.flag = Some(flag);
        self
    }

    pub(super) const fn with_type_name(self, type_name: &'static str) -> Self {
        match self.flag {
            Some(flag) => self.with_flag(Flag { type_name: Some(type_name), ..flag }),
            None => self,
        }
    }

    pub(super) const fn short(self, short: char) -> Self {
        match self.flag {
            Some(flag) => self.with_flag(Flag { short: Some(short), ..flag }),
            None => self,
        }
    }

    pub(super) const fn hidden(self) -> Self {
        match self.flag {
            Some(flag) => self.with_flag(Flag { hidden: true, ..flag }),
            None => self,
        }
    }

    pub(super) const fn zero_is_default(mut self) -> Self {
        self.zero_is_default = true;
        self
    }

    pub(super) const fn unused(mut self, why: &'static str) -> Self {
        self.unused = Some(why);
        self
    }

    /// Returns the identifier of the setting in this module: the first of its YAML, TOML and flag names.
    pub(super) fn id(&self) -> &'static str {
        self.yaml
            .or(self.toml)
            .or(self.flag.map(|flag| flag.name))
            .expect("every row has a name in some input")
    }
}
