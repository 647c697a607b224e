//! The measured changes: of an endpoint, and of a whole Service.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::cluster_state::{service, service_name, slice, slice_name};
use super::daemon::{Daemon, Took};

/// The name of the Service that is added and deleted: the last one, as new Services are written last.
const ADDED: &str = "zz-added";

/// The rate and the duration of endpoint changes under load.
pub(crate) const CHANGES_A_SECOND: u32 = 100;
const LOAD: Duration = Duration::from_secs(10);

impl Daemon<'_> {
    /// Changes the address of one endpoint of a Service, a different Service each time.
    pub(crate) fn move_endpoint(&mut self, services: usize, change: usize) -> Took {
        let i = (services / 2 + change) % services;
        let moved = slice(&service_name(i), i, Some(&format!("10.250.0.{}", change + 1)));
        self.follow(|server| {
            server.apply(moved);
        })
    }

    /// Changes endpoints of different Services at a fixed rate for some time. Returns the CPU time that the daemon uses
    /// meanwhile, in seconds per second.
    pub(crate) fn under_load(&mut self, services: usize) -> f64 {
        let used = self.processor_time();
        let begun = Instant::now();
        let count = (LOAD.as_secs_f64() * f64::from(CHANGES_A_SECOND)) as u32;
        for n in 0..count {
            let i = n as usize % services;
            let [_, _, high, low] = n.to_be_bytes();
            self.server.apply(slice(&service_name(i), i, Some(&format!("10.251.{high}.{low}"))));
            sleep((Duration::from_secs(1) / CHANGES_A_SECOND * (n + 1)).saturating_sub(begun.elapsed()));
        }
        self.processor_time().since(used).own.as_secs_f64() / begun.elapsed().as_secs_f64()
    }

    /// Adds a Service to `services` others; its endpoints exist already.
    pub(crate) fn add_service(&mut self, services: usize) -> Took {
        self.prepare(slice(ADDED, services, None));
        let service = service(ADDED, services);
        self.follow(|server| {
            server.apply(service);
        })
    }

    /// Deletes the added Service, then its EndpointSlice.
    pub(crate) fn delete_service(&mut self) -> Took {
        let took = self.follow(|server| {
            server.delete("services", &format!("bench/{ADDED}"));
        });
        self.server.delete("endpointslices", &format!("bench/{}", slice_name(ADDED)));
        sleep(Duration::from_millis(500));
        took
    }
}
