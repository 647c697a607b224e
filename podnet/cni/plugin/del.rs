//! `DEL`: removes the interface of a container, and returns its addresses. Whatever is missing has been removed already.

use super::super::configuration::NetworkConfiguration;
use super::super::error::{CniError, ErrorCode, Result};
use super::super::request::Container;
use super::{host_ports, rtnetlink, store_error, store_without_ranges};
use crate::pod_interface;

pub(super) fn run(configuration: &NetworkConfiguration, container: &Container) -> Result<()> {
    let key = &container.key;
    let store = store_without_ranges(configuration)?;
    // First what uses the addresses: another pod may get them as soon as they are returned.
    host_ports::remove(configuration, &store, key)?;
    pod_interface::remove(&mut rtnetlink()?, key)
        .map_err(|error| CniError::new(ErrorCode::Kernel, error.to_string()))?;
    store.remove(key).map_err(|error| store_error(&error))?;
    Ok(())
}
