//! Another process writes rules while the proxier of iptables mode does.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, DirtyServices, ServiceChange, ServicePort};
use portcullis_cluster::{Event, Family, Index, Kind, Name, Object, ObjectKey};
use portcullis_modes::Mode;
use portcullis_modes::iptables::{
    Fingerprint, Flavour, IptablesKernel, IptablesProxier, Table, ToolError, compare_rules,
};

use crate::namespace::{inside, run};
use crate::node::{FLAVOURS, Node, index, tool};

/// When another process writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    BeforeRestore,
    AfterRestore,
}

/// Commands of another process, to be run once.
type Commands = Arc<Mutex<Option<(Moment, Vec<String>)>>>;

/// A kernel in which another process writes before or after a restore.
struct SharedKernel {
    kernel: Box<dyn IptablesKernel>,
    commands: Commands,
}

impl SharedKernel {
    fn reach(&self, moment: Moment) {
        let commands = self.commands.lock().unwrap().take_if(|(at, _)| *at == moment);
        commands.iter().flat_map(|(_, commands)| commands).for_each(|command| drop(run(command)));
    }
}

impl IptablesKernel for SharedKernel {
    fn flavour(&self) -> Flavour {
        self.kernel.flavour()
    }

    fn restore(&self, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> Result<(), ToolError> {
        self.reach(Moment::BeforeRestore);
        let restored = self.kernel.restore(write);
        self.reach(Moment::AfterRestore);
        restored
    }

    fn dump(&self, table: Table, line: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
        self.kernel.dump(table, line)
    }

    fn dump_without(
        &self,
        table: Table,
        is_skipped: &dyn Fn(&str) -> bool,
        line: &mut dyn FnMut(&str),
    ) -> Result<(), ToolError> {
        self.kernel.dump_without(table, is_skipped, line)
    }

    fn is_costly_to_list(&self, table: Table) -> bool {
        self.kernel.is_costly_to_list(table)
    }

    fn delete_jumps(&self, table: Table, jumps: &[String]) -> bool {
        self.kernel.delete_jumps(table, jumps)
    }

    fn dump_counters(&self, chain: &str, line: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
        self.kernel.dump_counters(chain, line)
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        self.kernel.fingerprint()
    }

    fn chain_fingerprint(&self) -> Option<u64> {
        self.kernel.chain_fingerprint()
    }
}

/// Changes of another process; several commands are separated by `;`.
const CHANGES: [(&str, bool); 7] = [
    // Arguments of the tool; the next check finds the change with either flavour of the tool.
    ("-t nat -D PREROUTING 1", true),
    ("-t filter -D FORWARD 1", true),
    ("-t nat -F", true),
    ("-t filter -F KUBE-FORWARD", true),
    ("-t nat -R PREROUTING 1 -j RETURN", true),
    ("-t nat -D OUTPUT 1; -t nat -A KUBE-POSTROUTING -j RETURN", true),
    // The number of entries is as expected: with the legacy tool, only a comparison shows it.
    ("-t nat -R KUBE-POSTROUTING 1 -j RETURN", false),
];

/// The node's objects.
struct Cluster {
    index: Index,
    desired: Desired,
    deleted: Option<Object>,
}

impl Cluster {
    fn new() -> Self {
        let index = index("dual-stack");
        Cluster { desired: Desired::from_index(&index, Name::new("node-a")), index, deleted: None }
    }

    /// Deletes a Service that is served in this family, or applies the deleted one.
    fn change_service(&mut self, family: Family) -> Vec<ServiceChange> {
        let event = match self.deleted.take() {
            Some(service) => Event::Applied(service),
            None => {
                let is_served =
                    |port: &ServicePort| port.family == family && !port.endpoints.serving().is_empty();
                let mut services = self.desired.services().iter();
                let (name, _) = services.find(|(_, ports)| ports.iter().any(is_served)).unwrap();
                self.deleted = self.index.service(name).cloned().map(Object::Service);
                Event::Deleted(ObjectKey { kind: Kind::Service, name: name.clone() })
            }
        };
        let mut dirty = DirtyServices::default();
        dirty.extend(self.index.handle(event));
        self.desired.update(&self.index, dirty)
    }
}

#[test]
fn writes_of_another_process_during_a_restore_are_found() {
    for (flavour, family) in FLAVOURS.into_iter().flat_map(|flavour| Family::BOTH.map(|f| (flavour, f))) {
        inside(|| {
            let mut node = Node::new(flavour, "dual-stack");
            let commands = Commands::default();
            let kernels = Family::BOTH.map(|of| {
                let commands = if of == family { commands.clone() } else { Commands::default() };
                let kernel: Box<dyn IptablesKernel> =
                    Box::new(SharedKernel { kernel: node.kernel(of), commands });
                (of, kernel)
            });
            let mut proxier = IptablesProxier::new(node.options.clone(), node.host.clone(), kernels);
            let mut cluster = Cluster::new();
            let mut now = Instant::now();
            sync(&mut proxier, &cluster.desired, &[], now);
            confirm(&mut proxier, &cluster.desired, &mut now);
            let cases = CHANGES.into_iter().flat_map(|change| {
                [Moment::BeforeRestore, Moment::AfterRestore].map(|moment| (change, moment))
            });
            for ((change, is_found_by_check), moment) in cases {
                let case = format!("{flavour:?}, {family}: {change}, {moment:?}");
                let tool = tool(flavour, family);
                let parts = change.split("; ").map(|arguments| format!("{tool} -w {arguments}")).collect();
                *commands.lock().unwrap() = Some((moment, parts));
                let changes = cluster.change_service(family);
                sync(&mut proxier, &cluster.desired, &changes, now);
                assert_eq!(*commands.lock().unwrap(), None, "{case}: nothing was written");
                if flavour == Flavour::Legacy && !is_found_by_check {
                    confirm(&mut proxier, &cluster.desired, &mut now);
                } else {
                    // A rejected write may have been followed by a comparison.
                    proxier.check_drift();
                    sync(&mut proxier, &cluster.desired, &[], now);
                }
                node.desired = Desired::from_index(&cluster.index, Name::new("node-a"));
                let differences = compare_rules(&node.desired_rules(family), &node.rules_in_kernel(family));
                assert_eq!(differences, [], "{case}");
                confirm(&mut proxier, &cluster.desired, &mut now);
                assert!(!proxier.check_drift(), "{case}: all is restored");
            }
        });
    }
}

fn sync(proxier: &mut IptablesProxier, desired: &Desired, changes: &[ServiceChange], now: Instant) {
    for result in proxier.sync_at(now, desired, changes) {
        assert_eq!((result.error, result.isolated), (None, vec![]), "{:?}", result.family);
    }
}

/// Runs the comparisons that follow own writes, until none is due.
fn confirm(proxier: &mut IptablesProxier, desired: &Desired, now: &mut Instant) {
    for _ in 0..3 {
        let Some(due) = proxier.next_due() else { return };
        assert!(
            due.duration_since(*now) <= Duration::from_secs(300),
            "a slow machine compares within five minutes"
        );
        *now = due;
        sync(proxier, desired, &[], due);
    }
    panic!("comparisons follow each other without end");
}
