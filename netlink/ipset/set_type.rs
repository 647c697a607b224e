//! Types of sets.

use std::fmt;

/// The types of sets that kube-proxy's rules match against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetType {
    /// `hash:ip`
    HashIp,
    /// `hash:ip,port`
    HashIpPort,
    /// `hash:ip,port,ip`
    HashIpPortIp,
    /// `hash:ip,port,net`
    HashIpPortNet,
    /// `bitmap:port`, always of all ports
    BitmapPort,
}

impl SetType {
    /// All of them.
    pub const ALL: [SetType; 5] = [
        SetType::HashIp,
        SetType::HashIpPort,
        SetType::HashIpPortIp,
        SetType::HashIpPortNet,
        SetType::BitmapPort,
    ];

    /// Returns the name, as in the kernel and in `ipset`.
    pub fn name(self) -> &'static str {
        match self {
            SetType::HashIp => "hash:ip",
            SetType::HashIpPort => "hash:ip,port",
            SetType::HashIpPortIp => "hash:ip,port,ip",
            SetType::HashIpPortNet => "hash:ip,port,net",
            SetType::BitmapPort => "bitmap:port",
        }
    }

    /// Returns the type with a name; `None` if it is unsupported.
    pub fn from_name(name: &str) -> Option<Self> {
        SetType::ALL.into_iter().find(|set_type| set_type.name() == name)
    }

    /// Returns true if sets of this type have a family; ports have none.
    pub fn has_family(self) -> bool {
        self != SetType::BitmapPort
    }

    /// Returns the last revision that this crate knows (Linux 6.18). A later one may require or list unknown attributes. So
    /// far, each revision added optional ones only: counters, comments, marks, bucket sizes, masks.
    pub(super) fn last_revision(self) -> u8 {
        match self {
            SetType::HashIp | SetType::HashIpPortIp => 6,
            SetType::HashIpPort => 7,
            SetType::HashIpPortNet => 8,
            SetType::BitmapPort => 3,
        }
    }
}

impl fmt::Display for SetType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
