//! Requests without a browser: methods, headers, and names of other hosts.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::daemon::{Daemon, Node};
use crate::namespace;
use crate::objects::SHOP;
use crate::site::{ADDRESS, ENABLED, PATHS, write};

/// Sends a request, and returns the head of the response and its body.
fn request(text: &str) -> (String, String) {
    let mut stream = TcpStream::connect(ADDRESS).unwrap();
    stream.write_all(format!("{text}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

fn get(path: &str) -> (String, String) {
    request(&format!("GET {path} HTTP/1.1\r\nHost: {ADDRESS}"))
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}

fn start(arguments: &[&str]) -> (Node, Daemon) {
    let node = Node::new();
    write(&node, "shop.yaml", SHOP);
    let mut daemon = node.start(arguments);
    daemon.wait_healthy();
    daemon.wait_until("the page is served", || arguments.is_empty() || TcpStream::connect(ADDRESS).is_ok());
    (node, daemon)
}

#[test]
fn the_page_is_off_by_default() {
    namespace::inside(|| {
        let (_node, daemon) = start(&[]);
        assert!(TcpStream::connect(ADDRESS).is_err(), "{}", daemon.log());
    });
}

#[test]
fn every_response_has_the_headers_that_protect_it() {
    namespace::inside(|| {
        let (_node, _daemon) = start(&[ENABLED]);
        for path in PATHS.into_iter().chain(["/nothing", "/service", "/assets/0/style.css"]) {
            let (head, _) = get(path);
            for header in [
                "content-security-policy: default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; ",
                "frame-ancestors 'none'",
                "base-uri 'none'",
                "x-content-type-options: nosniff",
                "x-frame-options: deny",
                "referrer-policy: no-referrer",
                "cache-control: no-store",
            ] {
                assert!(head.contains(header), "{path}: {header}\n{head}");
            }
            assert!(!head.contains("unsafe-inline") && !head.contains("access-control-"), "{path}: {head}");
        }
        let (head, body) = request(&format!("HEAD / HTTP/1.1\r\nHost: {ADDRESS}"));
        assert_eq!((status(&head), body.as_str()), ("200", ""));
        for (path, expected) in
            [("/nothing", "404"), ("/service", "400"), ("/service?namespace=shop&name=gone", "404")]
        {
            assert_eq!(status(&get(path).0), expected, "{path}");
        }
    });
}

#[test]
fn only_reading_requests_of_local_tools_are_served() {
    namespace::inside(|| {
        let (_node, _daemon) = start(&[ENABLED]);
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let (head, _) = request(&format!("{method} / HTTP/1.1\r\nHost: {ADDRESS}\r\nContent-Length: 0"));
            assert_eq!(status(&head), "405", "{method}");
            assert!(head.contains("allow: get, head"), "{method}: {head}");
        }
        for (host, expected) in [
            ("localhost:8080", "200"),
            ("[::1]:10262", "200"),
            ("attacker.example", "421"),
            ("192.0.2.1:10262", "421"),
        ] {
            let (head, body) = request(&format!("GET / HTTP/1.1\r\nHost: {host}"));
            assert_eq!(status(&head), expected, "{host}");
            assert_eq!(body.contains("node-a"), expected == "200", "{host}: {body}");
        }
        let (head, _) = request(&format!(
            "GET / HTTP/1.1\r\nHost: {ADDRESS}\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors"
        ));
        assert_eq!(status(&head), "403");
    });
}

#[test]
fn the_stylesheet_is_kept_by_browsers_until_it_changes() {
    namespace::inside(|| {
        let (_node, _daemon) = start(&[ENABLED]);
        let (_, page) = get("/");
        let path =
            page.split('"').find(|part| part.ends_with("/style.css")).expect("a link to the stylesheet");
        let (head, style) = get(path);
        assert!(head.contains("immutable") && head.contains("content-type: text/css"), "{head}");
        assert!(style.contains("prefers-color-scheme: dark"));
        let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("an ETag");
        let (head, body) =
            request(&format!("GET {path} HTTP/1.1\r\nHost: {ADDRESS}\r\nIf-None-Match: {etag}"));
        assert_eq!((status(&head), body.as_str()), ("304", ""));
    });
}

#[test]
fn another_address_than_loopback_is_a_warning() {
    namespace::inside(|| {
        let (_node, mut daemon) = start(&["--status-page-bind-address=0.0.0.0"]);
        let path = daemon.log.clone();
        daemon.wait_until("it is logged", || {
            let log = std::fs::read_to_string(&path).unwrap();
            log.lines().any(|line| line.contains("WARN") && line.contains("which is not a loopback address"))
        });
        let (head, _) = request("GET / HTTP/1.1\r\nHost: node-a.example");
        assert_eq!(status(&head), "200", "an address of the network has any name");
    });
}
