//! The requests that a list and a watch take.

use http::header::ACCEPT;
use kube::client::Body;
use portcullis_cluster::Kind;

use crate::source::Selection;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request<'a> {
    /// All objects, one by one, and then what changes.
    StreamingList { seconds: u64 },
    /// A page of all objects; the first one without a token. A size of 0 asks for all at once.
    Page { next: Option<&'a str>, size: u32 },
    /// What has changed since a revision.
    Watch { revision: &'a str, seconds: u64 },
}

/// The request for it.
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

/// The path under which all objects of a kind stand.
pub(super) fn path(kind: Kind) -> String {
    let root = if kind.api_version().contains('/') { "apis" } else { "api" };
    format!("/{root}/{}/{}", kind.api_version(), kind.plural())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_of_the_recordings() {
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
