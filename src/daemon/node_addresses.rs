//! The addresses of this machine, shared by the controllers.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::host;

/// The addresses of this machine, as last read.
#[derive(Clone, Debug)]
pub(super) struct NodeAddresses(Arc<Mutex<Vec<IpAddr>>>);

impl NodeAddresses {
    /// Reads them.
    pub(super) fn read() -> Self {
        NodeAddresses(Arc::new(Mutex::new(host::addresses())))
    }

    /// Returns them.
    pub(super) fn get(&self) -> Vec<IpAddr> {
        self.lock().clone()
    }

    /// Reads them again. Returns true if they changed.
    pub(super) fn refresh(&self) -> bool {
        let addresses = host::addresses();
        let mut current = self.lock();
        let has_changed = *current != addresses;
        *current = addresses;
        has_changed
    }

    fn lock(&self) -> MutexGuard<'_, Vec<IpAddr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
