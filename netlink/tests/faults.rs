//! Faults of single calls on a real kernel: each request reports the fault or is not affected by it, and the socket can be
//! used again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod namespace;

use std::net::IpAddr;
use std::sync::Arc;

use namespace::{inside, run};
use portcullis_netlink::conntrack::Conntrack;
use portcullis_netlink::nf_tables::{
    self, DataType, DesiredTable, Element, Key, RulesetEvents, Set, SetSpec, TableFamily,
};
use portcullis_netlink::route::{AddressEvent, AddressMonitor, Rtnetlink};
use portcullis_netlink::socket::faults::{Fault, FaultPlan};
use portcullis_netlink::{Error, Family};

const TABLE: &str = "faults";
const ELEMENTS: u32 = 5_000;

fn spec() -> SetSpec {
    SetSpec::new(&[DataType::Ipv4Addr])
}

/// Writes a table with a set whose list takes many datagrams.
fn write_large_set() {
    let element =
        |number: u32| (Key::from(IpAddr::from((0x0a00_0000 | number).to_be_bytes())), Element::new());
    let mut table = DesiredTable::new(TableFamily::Inet, TABLE);
    table.put_set(&Arc::from("large"), Set::with_elements(spec(), (0..ELEMENTS).map(element)));
    nf_tables::commit(&mut nf_tables::open().unwrap().unwrap(), &mut table).unwrap();
}

/// Injects every fault into some calls of `request`, which returns true if its result is complete. Returns the number of
/// injected faults.
fn observe(plan: &FaultPlan, mut request: impl FnMut() -> Result<bool, Error>) -> usize {
    plan.count();
    assert!(request().unwrap(), "without a fault");
    let calls = plan.calls();
    let mut injected = 0;
    for fault in Fault::ALL {
        for call in [0, 1, 2, calls / 2, calls - 1] {
            plan.inject(call, fault);
            let result = request();
            if !plan.is_injected() {
                continue;
            }
            injected += 1;
            match result {
                Ok(is_complete) => assert!(is_complete, "{fault:?} at call {call} of {calls} goes unnoticed"),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
            plan.count();
            let again = request().unwrap_or_else(|error| panic!("after {fault:?} at call {call}: {error}"));
            assert!(again, "the request after {fault:?} at call {call} of {calls}");
        }
    }
    injected
}

#[test]
fn lists_are_complete_or_fail_and_can_be_repeated() {
    inside(|| {
        write_large_set();
        let plan = FaultPlan::new();
        let mut socket = plan.run(|| nf_tables::open().unwrap().unwrap());
        let injected = observe(&plan, || {
            let elements = nf_tables::read_elements(&mut socket, TableFamily::Inet, TABLE, "large", &spec())?;
            Ok(elements.len() == ELEMENTS as usize)
        });
        assert!(injected > 40, "{injected}");

        let mut links = plan.run(|| Rtnetlink::open().unwrap());
        assert!(observe(&plan, || Ok(links.links()?.iter().any(|link| link.name == "lo"))) > 20);
        let mut flows = plan.run(|| Conntrack::open().unwrap());
        assert!(observe(&plan, || flows.dump(&[Family::V4], &[], |_| Ok(())).map(|()| true)) > 20);
        assert!(observe(&plan, || Ok(nf_tables::generation(&mut socket)? > 0)) > 20);
    });
}

#[test]
fn lost_or_malformed_notifications_are_reported_and_the_subscription_continues() {
    inside(|| {
        run("ip link set lo up");
        for fault in [Fault::Overrun, Fault::ShortRead, Fault::LargeDatagram] {
            let plan = FaultPlan::new();
            let mut rules = plan.run(|| {
                let own = nf_tables::open().unwrap().unwrap();
                RulesetEvents::listen(TABLE, &own).unwrap()
            });
            plan.inject(0, fault);
            run(&format!("nft add table ip {TABLE}"));
            let lost = rules.wait(|_| panic!("the notification is lost"));
            assert!(
                plan.is_injected() && lost.as_ref().is_err_and(Error::is_transient),
                "{fault:?}: {lost:?}"
            );
            run(&format!("nft delete table ip {TABLE}"));
            let mut relevant = false;
            while !relevant {
                rules.wait(|event| relevant |= event.is_relevant).unwrap();
            }

            let mut addresses = plan.run(|| AddressMonitor::open().unwrap());
            plan.inject(0, fault);
            run("ip address add 192.0.2.1/32 dev lo");
            assert_eq!(addresses.try_next().unwrap(), Some(AddressEvent::Overrun), "{fault:?}");
            run("ip address del 192.0.2.1/32 dev lo");
            assert!(matches!(addresses.try_next().unwrap(), Some(AddressEvent::Removed { .. })), "{fault:?}");
        }
    });
}
