//! `DEL`: removes the interface of a container, and returns its addresses. Whatever is missing has been removed already.

use super::super::configuration::NetworkConfiguration;
use super::super::error::{CniError, ErrorCode, Result};
use super::super::request::Container;
use super::{rtnetlink, store_error, store_without_ranges};
use crate::pod_interface;

pub(super) fn run(configuration: &NetworkConfiguration, container: &Container) -> Result<()> {
    let key = &container.key;
    // First the interface: another pod may get the addresses as soon as they are returned.
    pod_interface::remove(&mut rtnetlink()?, key)
        .map_err(|error| CniError::new(ErrorCode::Kernel, error.to_string()))?;
    store_without_ranges(configuration)?.remove(key).map_err(|error| store_error(&error))?;
    Ok(())
}
