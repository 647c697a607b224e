//! HTTP requests for lists and watches.

use http::header::ACCEPT;
use kube::client::Body;
use portcullis_cluster::Kind;

use crate::source::Selection;

/// A request for the objects of a kind.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request<'a> {
    /// A streaming list (KEP-3157): all objects as watch events, and then their changes.
    StreamingList { seconds: u64 },
    /// A page of a list; `next` is the continue token, `None` for the first page. A size of 0 requests all objects.
    Page { next: Option<&'a str>, size: u32 },
    /// The changes after a resourceVersion.
    Watch { revision: &'a str, seconds: u64 },
}

/// Returns the HTTP request.
pub(super) fn http_request(selection: &Selection, request: Request<'_>) -> http::Request<Body> {
    http::Request::get(uri(selection, request))
        .header(ACCEPT, "application/json")
        .body(Body::empty())
        .expect("a path of known kinds with an encoded query is a valid address")
}

fn uri(selection: &Selection, request: Request<'_>) -> String {
    let before = format!("{}?", path(selection.kind));
    let query_starts = before.len();
    let mut query = form_urlencoded::Serializer::for_suffix(before, query_starts);
    let selectors = [("labelSelector", &selection.labels), ("fieldSelector", &selection.fields)];
    query.extend_pairs(
        selectors.into_iter().filter_map(|(name, value)| value.as_ref().map(|value| (name, value))),
    );
    match request {
        Request::Page { next, size } => {
            if size > 0 {
                query.append_pair("limit", &size.to_string());
            }
            query.extend_pairs(next.map(|token| ("continue", token)));
        }
        Request::StreamingList { seconds } => {
            query.extend_pairs([
                ("watch", "true"),
                ("allowWatchBookmarks", "true"),
                ("sendInitialEvents", "true"),
                ("resourceVersionMatch", "NotOlderThan"),
                ("timeoutSeconds", &seconds.to_string()),
            ]);
        }
        Request::Watch { revision, seconds } => {
            query.extend_pairs([
                ("watch", "true"),
                ("allowWatchBookmarks", "true"),
                ("resourceVersion", revision),
                ("timeoutSeconds", &seconds.to_string()),
            ]);
        }
    }
    let uri = query.finish();
    uri.strip_suffix('?').map_or(uri.clone(), str::to_owned)
}

/// The path of the objects of a kind in all namespaces.
pub(super) fn path(kind: Kind) -> String {
    let root = if kind.api_version().contains('/') { "apis" } else { "api" };
    format!("/{root}/{}/{}", kind.api_version(), kind.plural())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_those_of_the_recordings() {
        let services = Selection::all(Kind::Service);
        let rows = [
            (&services, Request::Page { next: None, size: 0 }, "/api/v1/services"),
            (
                &services,
                Request::Page { next: Some("abc="), size: 3 },
                "/api/v1/services?limit=3&continue=abc%3D",
            ),
            (
                &services,
                Request::StreamingList { seconds: 10 },
                "/api/v1/services?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=10",
            ),
            (
                &Selection::node("n1"),
                Request::Page { next: None, size: 0 },
                "/api/v1/nodes?fieldSelector=metadata.name%3Dn1",
            ),
            (
                &Selection::endpoint_slices(),
                Request::Watch { revision: "86", seconds: 30 },
                "/apis/discovery.k8s.io/v1/endpointslices?labelSelector=%21service.kubernetes.io%2Fheadless&watch=true&allowWatchBookmarks=true&resourceVersion=86&timeoutSeconds=30",
            ),
            (
                &Selection::services(),
                Request::Page { next: None, size: 50 },
                "/api/v1/services?labelSelector=%21service.kubernetes.io%2Fservice-proxy-name&fieldSelector=spec.clusterIP%21%3DNone&limit=50",
            ),
        ];
        for (selection, request, expected) in rows {
            assert_eq!(uri(selection, request), expected);
        }
    }
}
