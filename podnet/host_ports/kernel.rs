//! Host ports in the kernel: added and removed by the plugin, restored by the daemon.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use portcullis_netlink::nf_tables::{
    self, ChangeCounts, DesiredTable, Element, Key, Table, TableFamily, UnknownObjects, delete_table,
};
use portcullis_netlink::route::Rtnetlink;
use portcullis_netlink::socket::Socket;
use portcullis_netlink::{Family, Result as KernelResult};
use rustix::fs::{FlockOperation, flock};

use super::elements::{Forward, HostPortConflict, HostPortRecords, PodHostPorts, forwards, hairpin, target};
use super::error::HostPortError;
use super::mapping::PortMapping;
use super::table::{SetKind, TABLE, empty_table};
use super::{loopback, stale_flows};

/// The interface of kube-proxy and of IPVS mode that has the addresses of all Services.
const IPVS_INTERFACE: &str = "kube-ipvs0";

/// The file in the state folder whose lock serialises changes.
const LOCK_FILE: &str = "host-ports.lock";

/// The maps with host ports.
const MAPS: [SetKind; 2] = [SetKind::HostIpPorts, SetKind::AllIpPorts];

/// The host ports of a network namespace, that of the calling thread.
#[derive(Debug)]
pub struct HostPorts {
    socket: Socket,
    lock: PathBuf,
    /// Addresses of Services that will be on an interface of this node.
    service_addresses: Vec<IpAddr>,
}

/// The effects of [`HostPorts::restore`].
#[derive(Debug)]
pub struct HostPortRestore {
    /// The objects that were changed in the kernel.
    pub changes: ChangeCounts,
    /// Host ports that two pods have.
    pub conflicts: Vec<HostPortConflict>,
    /// The number of deleted conntrack entries.
    pub stale_flows: KernelResult<usize>,
}

/// The table in the kernel, and the wanted one.
#[derive(Debug)]
pub struct HostPortComparison {
    /// The wanted table; `None` if there are no host ports.
    pub wanted: Option<Table>,
    /// The table in the kernel, with its objects that this program does not know.
    pub found: Option<(Table, UnknownObjects)>,
}

impl HostPorts {
    /// Opens the host ports of the calling thread's network namespace. `state` is the folder with the plugin's records, in which
    /// the lock file is created.
    ///
    /// # Errors
    /// The kernel has no nf_tables, or the process lacks privilege.
    pub fn open(state: &Path) -> Result<Self, HostPortError> {
        let socket = nf_tables::open()?.ok_or(HostPortError::NoTables)?;
        Ok(HostPorts { socket, lock: state.join(LOCK_FILE), service_addresses: Vec::new() })
    }

    /// Also excludes these addresses of Services from host ports: they will be on the interface of IPVS mode. Addresses that the node has
    /// on another interface are not excluded.
    #[must_use]
    pub fn with_service_addresses(mut self, addresses: &[IpAddr]) -> Self {
        self.service_addresses = addresses.to_vec();
        self
    }

    /// Writes the excluded addresses of Services, if there are host ports.
    ///
    /// # Errors
    /// An error of the kernel.
    pub fn exclude_services(&mut self) -> Result<ChangeCounts, HostPortError> {
        let Some(_lock) = self.lock_if_exists(FlockOperation::LockExclusive)? else {
            return Ok(ChangeCounts::default());
        };
        let Some(found) = self.read()? else { return Ok(ChangeCounts::default()) };
        Ok(self.commit(&mut carried_over(&found))?)
    }

    /// Adds the host ports of a pod, whose record must exist, so that [`HostPorts::restore`] keeps them. Adding them again changes
    /// nothing. `interface` is the node's interface to the pod. `is_attached` tells whether an address belongs to an existing
    /// pod: host ports with another address as their target are left over, and are replaced.
    ///
    /// Returns the result of the deletion of conntrack entries. An error there leaves UDP clients with an outdated flow, but the
    /// host ports work.
    ///
    /// # Errors
    /// [`HostPortError::Conflict`] if another pod has one of the ports; then nothing is changed. An error of the kernel.
    pub fn add(
        &mut self,
        pod: &PodHostPorts,
        interface: &str,
        is_attached: impl Fn(IpAddr) -> bool,
    ) -> Result<KernelResult<usize>, HostPortError> {
        let wanted = forwards(pod)?;
        if wanted.is_empty() {
            return Ok(Ok(0));
        }
        let _lock = self.lock()?;
        let mut table = self.read()?.map_or_else(empty_table, |found| carried_over(&found));
        let mut added = Vec::new();
        for forward in wanted {
            let holder = holder(&table, &forward);
            if let Some(holder) = holder
                && !pod.addresses.contains(&holder.ip())
                && is_attached(holder.ip())
            {
                return Err(HostPortError::Conflict { mapping: forward.mapping, holder });
            }
            if holder != Some(forward.target) {
                table.put_element(&forward.kind.name(forward.family), forward.key.clone(), forward.element());
                added.push(forward);
            }
        }
        self.commit(&mut table)?;
        // The table drops packets to loopback addresses from other hosts from now on.
        loopback::prepare(interface, pod)?;
        Ok(stale_flows::delete_untranslated(&added))
    }

    /// Removes the host ports whose targets are the addresses of a pod, and the conntrack entries of its connections through them.
    /// Removing them again changes nothing. Returns the result of the deletion of conntrack entries, as [`HostPorts::add`].
    ///
    /// # Errors
    /// An error of the kernel.
    pub fn remove(&mut self, pod: &PodHostPorts) -> Result<KernelResult<usize>, HostPortError> {
        let _lock = self.lock()?;
        if let Some(found) = self.read()? {
            let mut table = carried_over(&found);
            for family in Family::ALL {
                for kind in MAPS {
                    let name = kind.name(family);
                    for key in keys_of(&table, kind, family, |ip| pod.addresses.contains(&ip)) {
                        table.remove_element(&name, &key);
                    }
                }
            }
            self.commit(&mut table)?;
        }
        // After the elements: a packet would create the flow again.
        Ok(stale_flows::delete_to_targets(&forwards(pod).unwrap_or_default()))
    }

    /// Restores the table from the records of all pods, which `records` reads while no plugin changes host ports. Without host ports,
    /// no table is created.
    ///
    /// # Errors
    /// The error of `records`, or of the kernel.
    pub fn restore(
        &mut self,
        records: impl FnOnce() -> Result<HostPortRecords, String>,
    ) -> Result<HostPortRestore, HostPortError> {
        let _lock = self.lock()?;
        let found = self.read()?;
        let records = records().map_err(HostPortError::Records)?;
        let Wanted { mut table, mut all, conflicts } = Wanted::new(&records);
        if let (false, Some(found)) = (records.is_complete, &found) {
            keep_others(&mut table, &carried_over(found));
        }
        if all.is_empty() && found.is_none() {
            let changes = ChangeCounts::default();
            return Ok(HostPortRestore { changes, conflicts, stale_flows: Ok(0) });
        }
        let before = found.map(|found| carried_over(&found));
        let changes = self.commit(&mut table)?;
        let is_new = |forward: &Forward| {
            before.as_ref().and_then(|table| holder(table, forward)) != Some(forward.target)
        };
        all.retain(is_new);
        Ok(HostPortRestore { changes, conflicts, stale_flows: stale_flows::delete_untranslated(&all) })
    }

    /// Reads the table, and returns it with the one that the records of all pods call for. Nothing is changed.
    ///
    /// # Errors
    /// As [`HostPorts::restore`].
    pub fn compare(
        &mut self,
        records: impl FnOnce() -> Result<HostPortRecords, String>,
    ) -> Result<HostPortComparison, HostPortError> {
        let _lock = self.lock_if_exists(FlockOperation::LockShared)?;
        let found = nf_tables::read(&mut self.socket, TableFamily::Inet, TABLE)?;
        let records = records().map_err(HostPortError::Records)?;
        let Wanted { mut table, all, .. } = Wanted::new(&records);
        if let (false, Some((found, _))) = (records.is_complete, &found) {
            keep_others(&mut table, &carried_over(found));
        }
        // The daemon keeps an existing table without host ports.
        let is_wanted = !all.is_empty() || found.is_some();
        put_dependent(&mut table, &service_ips(&self.service_addresses)?);
        Ok(HostPortComparison { wanted: is_wanted.then(|| table.desired().clone()), found })
    }

    /// Returns the mappings of a pod whose host ports have another target.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn missing(&mut self, pod: &PodHostPorts) -> Result<Vec<PortMapping>, HostPortError> {
        let table = self.read()?.map_or_else(empty_table, |found| carried_over(&found));
        let mut wanted = forwards(pod)?;
        wanted.retain(|forward| holder(&table, forward) != Some(forward.target));
        let mut missing: Vec<PortMapping> = wanted.into_iter().map(|forward| forward.mapping).collect();
        missing.dedup();
        Ok(missing)
    }

    /// Deletes the table. Returns false if there was none.
    ///
    /// # Errors
    /// The process lacks privilege.
    pub fn delete_table() -> Result<bool, HostPortError> {
        let Some(mut socket) = nf_tables::open()? else { return Ok(false) };
        Ok(delete_table(&mut socket, TableFamily::Inet, TABLE)?)
    }

    fn lock(&self) -> Result<File, HostPortError> {
        let error = |source| HostPortError::Lock { path: self.lock.clone(), source };
        if let Some(folder) = self.lock.parent() {
            fs::create_dir_all(folder).map_err(error)?;
        }
        let error = |source| HostPortError::Lock { path: self.lock.clone(), source };
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&self.lock).map_err(error)?;
        flock(&file, FlockOperation::LockExclusive).map_err(|errno| error(errno.into()))?;
        Ok(file)
    }

    /// Waits for a change in progress. Without the lock file there has been none.
    fn lock_if_exists(&self, operation: FlockOperation) -> Result<Option<File>, HostPortError> {
        let error = |source| HostPortError::Lock { path: self.lock.clone(), source };
        let file = match File::open(&self.lock) {
            Ok(file) => file,
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(other) => return Err(error(other)),
        };
        flock(&file, operation).map_err(|errno| error(errno.into()))?;
        Ok(Some(file))
    }

    fn read(&mut self) -> KernelResult<Option<Table>> {
        let found = nf_tables::read(&mut self.socket, TableFamily::Inet, TABLE)?;
        Ok(found.map(|(table, _)| table))
    }

    /// Adds the elements that follow from others, and writes the table.
    fn commit(&mut self, table: &mut DesiredTable) -> KernelResult<ChangeCounts> {
        put_dependent(table, &service_ips(&self.service_addresses)?);
        Ok(nf_tables::commit(&mut self.socket, table)?.changes)
    }
}

/// The table without the elements that follow from others, its host ports, and those that two pods have.
struct Wanted {
    table: DesiredTable,
    all: Vec<Forward>,
    conflicts: Vec<HostPortConflict>,
}

impl Wanted {
    fn new(records: &HostPortRecords) -> Self {
        let (mut table, mut all, mut conflicts) = (empty_table(), Vec::new(), Vec::new());
        for pod in &records.pods {
            for forward in forwards(pod).unwrap_or_default() {
                match holder(&table, &forward) {
                    Some(holder) if holder != forward.target => conflicts.push(HostPortConflict {
                        mapping: forward.mapping,
                        pod: forward.target.ip(),
                        holder,
                    }),
                    Some(_) => {}
                    None => {
                        let name = forward.kind.name(forward.family);
                        table.put_element(&name, forward.key.clone(), forward.element());
                        all.push(forward);
                    }
                }
            }
        }
        Wanted { table, all, conflicts }
    }
}

/// Puts the elements that follow from others: of connections of pods to themselves, and of Services' addresses.
fn put_dependent(table: &mut DesiredTable, service_ips: &[IpAddr]) {
    for family in Family::ALL {
        let targets: BTreeSet<IpAddr> =
            MAPS.into_iter().flat_map(|kind| targets(table, kind, family)).collect();
        put_all(table, SetKind::Hairpin, family, targets.into_iter().map(hairpin));
        let of_family = service_ips.iter().filter(|ip| Family::from_address(**ip) == family);
        put_all(table, SetKind::ServiceIps, family, of_family.map(|ip| Key::from(*ip)));
    }
}

/// Returns the desired table with the host ports of a table in the kernel.
fn carried_over(found: &Table) -> DesiredTable {
    let mut table = empty_table();
    for family in Family::ALL {
        for kind in MAPS {
            let (name, spec) = (kind.name(family), kind.spec(family));
            let Some(set) = found.sets.get(&name) else { continue };
            // A map of another process, whose keys have another meaning.
            if set.spec.key != spec.key || set.spec.data != spec.data {
                continue;
            }
            for (key, element) in &set.elements {
                if let Some(target) = target(&element, family) {
                    let data = Key::new().address(target.ip()).port(target.port());
                    table.put_element(&name, key, Element::value(data));
                }
            }
        }
    }
    table
}

/// Adds the host ports of another table whose keys are free.
fn keep_others(table: &mut DesiredTable, others: &DesiredTable) {
    for family in Family::ALL {
        for name in MAPS.map(|kind| kind.name(family)) {
            let Some(set) = others.desired().sets.get(&name) else { continue };
            for (key, element) in &set.elements {
                let is_free = |table: &DesiredTable| {
                    table.desired().sets.get(&name).is_some_and(|set| !set.elements.contains_key(&key))
                };
                if is_free(table) {
                    table.put_element(&name, key, element);
                }
            }
        }
    }
}

/// Returns the target of a host port.
fn holder(table: &DesiredTable, forward: &Forward) -> Option<SocketAddr> {
    let set = table.desired().sets.get(&forward.kind.name(forward.family))?;
    target(&set.elements.get(&forward.key)?, forward.family)
}

fn targets(table: &DesiredTable, kind: SetKind, family: Family) -> Vec<IpAddr> {
    let set = table.desired().sets.get(&kind.name(family));
    let elements = set.into_iter().flat_map(|set| set.elements.values());
    elements.filter_map(|element| target(&element, family)).map(|target| target.ip()).collect()
}

/// Returns the keys of the elements whose targets have such an address.
fn keys_of(
    table: &DesiredTable,
    kind: SetKind,
    family: Family,
    is_included: impl Fn(IpAddr) -> bool,
) -> Vec<Key> {
    let set = table.desired().sets.get(&kind.name(family));
    let elements = set.into_iter().flat_map(|set| &set.elements);
    let included =
        elements.filter(|(_, element)| target(element, family).is_some_and(|to| is_included(to.ip())));
    included.map(|(key, _)| key).collect()
}

fn put_all(table: &mut DesiredTable, kind: SetKind, family: Family, keys: impl Iterator<Item = Key>) {
    let set = nf_tables::Set::with_elements(kind.spec(family), keys.map(|key| (key, Element::new())));
    table.put_set(&kind.name(family), set);
}

/// Returns the addresses of Services on the interface of IPVS mode, if there is one, and those of `more` that no other interface has.
fn service_ips(more: &[IpAddr]) -> KernelResult<Vec<IpAddr>> {
    let mut routes = Rtnetlink::open()?;
    let index = routes.link_index(IPVS_INTERFACE)?;
    let mut services = match index {
        Some(index) => routes.link_addresses(index)?.iter().map(ipnet::IpNet::addr).collect(),
        None => Vec::new(),
    };
    if !more.is_empty() {
        let others = routes.addresses(&Family::ALL)?.into_iter();
        let others = others.filter(|address| Some(address.index) != index);
        let own: BTreeSet<IpAddr> = others.map(|address| address.address.addr()).collect();
        services.extend(more.iter().copied().filter(|address| !own.contains(address)));
        services.sort_unstable();
        services.dedup();
    }
    Ok(services)
}
