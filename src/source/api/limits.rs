//! Limits of responses of the API server. docs/reliability.md lists them.

/// The largest object in a list or watch, in bytes of JSON. An object has at most 1.5 MiB in etcd (`--max-request-bytes`) and 3 MiB
/// in a request to the API server; its JSON is larger by escaping and base64, at most six times.
pub(super) const MAX_OBJECT: usize = 16 << 20;

/// The largest body of a list without its items, in bytes: its `apiVersion`, `kind`, `metadata`, and white space.
pub(super) const MAX_LIST_ENVELOPE: usize = 64 << 10;

/// The largest body of an error response that is read, in bytes. Of a larger one, only the status is used.
pub(super) const MAX_ERROR_BODY: usize = 64 << 10;

/// The largest response to a discovery request, in bytes.
pub(super) const MAX_DISCOVERY_BODY: usize = 1 << 20;

/// The most characters of an error's text that are kept: it is shown in logs and by health checks.
pub(super) const MAX_ERROR_TEXT: usize = 1_000;

/// Returns a number of bytes, as in `16 MiB`.
pub(super) fn bytes_text(bytes: usize) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}
