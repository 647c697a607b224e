//! The changes that are measured: of an endpoint, and of a whole Service.

use std::thread::sleep;
use std::time::Duration;

use super::cluster_state::{service, service_name, slice, slice_name};
use super::daemon::{Daemon, Took};

/// The name of the Service that comes and goes: the last one, as new Services are written last.
const ADDED: &str = "zz-added";

impl Daemon<'_> {
    /// Gives one endpoint of a Service another address; another Service each time.
    pub(crate) fn move_endpoint(&mut self, services: usize, change: usize) -> Took {
        let i = (services / 2 + change) % services;
        let moved = slice(&service_name(i), i, Some(&format!("10.250.0.{}", change + 1)));
        self.follow(|server| {
            server.apply(moved);
        })
    }

    /// Adds a Service beside so many, of which the endpoints are there already.
    pub(crate) fn add_service(&mut self, services: usize) -> Took {
        self.prepare(slice(ADDED, services, None));
        let service = service(ADDED, services);
        self.follow(|server| {
            server.apply(service);
        })
    }

    /// Deletes the added Service, then its slice.
    pub(crate) fn delete_service(&mut self) -> Took {
        let took = self.follow(|server| {
            server.delete("services", &format!("bench/{ADDED}"));
        });
        self.server.delete("endpointslices", &format!("bench/{}", slice_name(ADDED)));
        sleep(Duration::from_millis(500));
        took
    }
}
