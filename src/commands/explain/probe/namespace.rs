//! The network namespace of a client.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use portcullis_cluster::Family;
use portcullis_netlink::route::{Link, Rtnetlink};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::ProbeError;

/// Folders in which container runtimes and `ip netns` bind network namespaces.
const FOLDERS: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// The network namespace of this process.
const OWN: &str = "/proc/self/ns/net";

/// A network namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    /// A file that refers to it.
    pub(super) path: PathBuf,
    file: File,
}

impl Namespace {
    /// Opens the namespace to which a file refers.
    pub(super) fn open(path: &Path) -> Result<Self, ProbeError> {
        let open = || Ok(Namespace { path: path.to_owned(), file: File::open(path)? });
        open().map_err(|source| ProbeError::Namespace { path: path.to_owned(), source })
    }

    /// Runs a closure in the namespace, on a thread of its own. Sockets that it opens stay in the namespace.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, ProbeError> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| enter(&self.file).map(|()| work()));
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .map_err(|source| ProbeError::Namespace { path: self.path.clone(), source })
    }

    /// Returns true if it is the network namespace of this process.
    pub(super) fn is_own(&self) -> bool {
        let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        match (self.file.metadata(), fs::metadata(OWN)) {
            (Ok(this), Ok(own)) => id(this) == id(own),
            _ => false,
        }
    }
}

fn enter(file: &File) -> io::Result<()> {
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(io::Error::from)
}

/// Finds the network namespace of a pod on this machine by one of its addresses. If several have it, the one to which a
/// link of this namespace leads is used: other clusters, or other nodes, may run on this machine. `may_be_unlinked`: the pod
/// may be connected otherwise.
pub(super) fn of_pod(pod: &str, address: IpAddr, may_be_unlinked: bool) -> Result<Namespace, ProbeError> {
    let mut here = Rtnetlink::open()?;
    let linked: HashSet<i32> =
        here.links()?.iter().filter_map(|link| link.peer).map(|peer| peer.netns).collect();
    let with_address: Vec<Namespace> = all()
        .into_iter()
        .filter(|namespace| !namespace.is_own())
        .filter(|namespace| namespace.run(|| has_address(address)).is_ok_and(|has| has))
        .collect();
    let count = with_address.len();
    let mut of_this_node = Vec::new();
    let mut others = Vec::new();
    for namespace in with_address {
        let id = here.namespace_id(namespace.file.as_fd()).ok().flatten();
        let is_linked = id.is_some_and(|id| linked.contains(&id));
        match is_linked {
            true => of_this_node.push(namespace),
            false if may_be_unlinked => others.push(namespace),
            false => {}
        }
    }
    let mut candidates = if of_this_node.is_empty() { others } else { of_this_node };
    match (candidates.pop(), candidates.is_empty()) {
        (Some(found), true) => Ok(found),
        (None, _) => Err(ProbeError::NoNamespace { pod: pod.to_owned(), address }),
        (Some(_), false) => Err(ProbeError::AmbiguousNamespace { pod: pod.to_owned(), address, count }),
    }
}

/// Returns all network namespaces that files of this machine refer to, each once.
fn all() -> Vec<Namespace> {
    let in_folder = |folder: &str| fs::read_dir(folder).into_iter().flatten().flatten();
    let bound = FOLDERS.into_iter().flat_map(in_folder).map(|entry| entry.path());
    let is_process = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let of_processes = in_folder("/proc")
        .filter(|entry| is_process(&entry.file_name()))
        .map(|entry| entry.path().join("ns/net"));
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for path in bound.chain(of_processes) {
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if seen.insert((metadata.dev(), metadata.ino())) {
            found.extend(Namespace::open(&path));
        }
    }
    found
}

/// Returns true if a link of the calling thread's namespace has an address.
pub(super) fn has_address(address: IpAddr) -> bool {
    let family = match Family::from_address(address) {
        Family::V4 => portcullis_netlink::Family::V4,
        Family::V6 => portcullis_netlink::Family::V6,
    };
    let addresses = || Rtnetlink::open()?.addresses(&[family]);
    addresses().is_ok_and(|found| found.iter().any(|found| found.address.addr() == address))
}

/// Returns the links of the calling thread's namespace.
pub(super) fn links() -> Result<Vec<Link>, ProbeError> {
    Ok(Rtnetlink::open()?.links()?)
}
