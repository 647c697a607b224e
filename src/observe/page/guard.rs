//! Checks of requests before any page is made, and headers of all responses.
//!
//! A browser sends requests to addresses that the machine of its user reaches, also for pages of other sites. So that such a
//! page can neither read this one nor make the daemon work:
//! - the name in `Host` must be one that only the user's own tools use, if the server listens on a loopback address: a foreign
//!   name that resolves to that address (DNS rebinding) is an error;
//! - requests that a page of another site sends, other than following a link, are rejected by `Sec-Fetch-Site`;
//! - the policy of the responses allows neither frames of other sites nor content of another origin.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::error_page;

/// Only files of the page itself; no inline scripts or styles, no frames, no plugins; forms are sent to the page itself.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Headers of all responses.
const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Handles a request for the server that listens on this address.
pub(super) async fn check(State(address): State<SocketAddr>, request: Request, next: Next) -> Response {
    let mut response = match problem(address.ip(), request.method(), request.headers()) {
        Some((status, message)) => error_page::response(status, message),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// Returns why a request is rejected.
fn problem(address: IpAddr, method: &Method, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    if ![Method::GET, Method::HEAD].contains(method) {
        return Some((StatusCode::METHOD_NOT_ALLOWED, "This page is read only: expected GET or HEAD."));
    }
    if address.to_canonical().is_loopback() && !has_local_host(headers) {
        let message = "This server listens on a loopback address and answers requests for localhost or a loopback \
                       address only. Open the page by such an address.";
        return Some((StatusCode::MISDIRECTED_REQUEST, message));
    }
    is_sent_by_another_site(headers)
        .then_some((StatusCode::FORBIDDEN, "Pages of other sites may link to this page, but not read it."))
}

/// Returns true if the request names `localhost` or a loopback address, with any port: `kubectl port-forward` and `ssh -L`
/// listen on other ports.
fn has_local_host(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let authority = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    authority.is_some_and(|authority| {
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        // `user@localhost` is an authority, but not the value of a Host header.
        !authority.as_str().contains('@')
            && (bare.eq_ignore_ascii_case("localhost")
                || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback()))
    })
}

/// Returns true if a page of another site sent the request, other than by a link. Programs send no such headers.
fn is_sent_by_another_site(headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|found| found == value);
    let is_foreign = is("sec-fetch-site", "cross-site") || is("sec-fetch-site", "same-site");
    is_foreign && !(is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_names_reach_a_loopback_address() {
        let rows = [
            (Some("localhost:10262"), true),
            (Some("LOCALHOST"), true),
            (Some("127.0.0.1:8080"), true),
            (Some("127.8.0.1"), true),
            (Some("[::1]:10262"), true),
            (Some("[::ffff:127.0.0.1]"), true),
            (None, false),
            (Some(""), false),
            (Some("attacker.example:10262"), false),
            (Some("localhost.attacker.example"), false),
            (Some("127.0.0.1.attacker.example"), false),
            (Some("user@localhost"), false),
            (Some("192.0.2.1:10262"), false),
            (Some("0.0.0.0:10262"), false),
            (Some("[::]:10262"), false),
        ];
        for (host, is_allowed) in rows {
            let mut headers = HeaderMap::new();
            if let Some(host) = host {
                headers.insert(HOST, HeaderValue::from_static(host));
            }
            let loopback = problem(IpAddr::from([127, 0, 0, 1]), &Method::GET, &headers);
            assert_eq!(loopback.is_none(), is_allowed, "{host:?}");
            // Another address may have any name.
            assert_eq!(problem(IpAddr::from([192, 0, 2, 1]), &Method::GET, &headers), None, "{host:?}");
        }
        let mut two = HeaderMap::new();
        two.append(HOST, HeaderValue::from_static("localhost"));
        two.append(HOST, HeaderValue::from_static("attacker.example"));
        assert!(problem(IpAddr::from([127, 0, 0, 1]), &Method::GET, &two).is_some());
    }

    #[test]
    fn no_request_changes_anything() {
        for method in
            [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS, Method::TRACE]
        {
            let problem = problem(IpAddr::from([192, 0, 2, 1]), &method, &HeaderMap::new());
            assert_eq!(problem.map(|(status, _)| status), Some(StatusCode::METHOD_NOT_ALLOWED), "{method}");
        }
    }

    #[test]
    fn pages_of_other_sites_may_only_link() {
        let rows = [
            (["same-origin", "cors", "empty"], true),
            (["none", "navigate", "document"], true),
            (["cross-site", "navigate", "document"], true),
            (["cross-site", "no-cors", "image"], false),
            (["cross-site", "cors", "empty"], false),
            (["cross-site", "navigate", "iframe"], false),
            (["same-site", "no-cors", "script"], false),
        ];
        for ([site, mode, destination], is_allowed) in rows {
            let headers = HeaderMap::from_iter([
                (HeaderName::from_static("sec-fetch-site"), HeaderValue::from_static(site)),
                (HeaderName::from_static("sec-fetch-mode"), HeaderValue::from_static(mode)),
                (HeaderName::from_static("sec-fetch-dest"), HeaderValue::from_static(destination)),
            ]);
            let problem = problem(IpAddr::from([192, 0, 2, 1]), &Method::GET, &headers);
            assert_eq!(problem.is_none(), is_allowed, "{site} {mode} {destination}");
        }
    }
}
