//! HTTP responses of the API server, read with a timeout for each part.

use std::time::{Duration, Instant};

use http::header::{CONTENT_ENCODING, RETRY_AFTER};
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use tokio::time::timeout;

use super::limits::MAX_ERROR_BODY;
use super::request_error::{RequestError, StatusError};
use crate::error_chain::describe;
use crate::source::access::AccessError;

/// The number of bytes of a body that must arrive within the time limit, unless the body ends.
const PROGRESS: usize = 64 << 10;

/// A successful response, of which the body is still to be read.
pub(super) struct Response {
    body: Body,
}

/// Sends a request and waits up to `limit` for the head of the response.
///
/// # Errors
/// The request could not be sent, or the response has another status than success.
pub(super) async fn send_request(
    client: &Client,
    request: http::Request<Body>,
    limit: Duration,
) -> Result<Response, RequestError> {
    let response = match timeout(limit, client.send(request)).await {
        Err(_) => return Err(RequestError::TimedOut(limit)),
        Ok(Err(error)) => return Err(send_error(&error)),
        Ok(Ok(response)) => response,
    };
    let (head, body) = response.into_parts();
    if head.status.is_success() {
        return match head.headers.get(CONTENT_ENCODING) {
            Some(encoding) if encoding != "identity" => {
                let message = format!("its encoding {encoding:?} was not requested");
                Err(RequestError::Malformed(message))
            }
            _ => Ok(Response { body }),
        };
    }
    let read = timeout(limit, Limited::new(body, MAX_ERROR_BODY).collect()).await;
    // The status is used even if the body cannot be read.
    let bytes = read.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
    let mut status_error = StatusError::from_body(head.status.as_u16(), &bytes);
    let seconds = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    status_error.retry_after = seconds.map(Duration::from_secs).or(status_error.retry_after);
    Err(RequestError::Rejected(status_error))
}

/// Tells an error of the credentials from one of the connection.
fn send_error(error: &kube::Error) -> RequestError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<kube::client::AuthError>() {
            let of =
                "credentials for the API server (the exec plugin or the token of the kubeconfig)".to_owned();
            return RequestError::Access(AccessError::Credentials { of, message: describe(error) });
        }
        cause = error.source();
    }
    RequestError::Unreachable(describe(error))
}

impl Response {
    /// Returns the next bytes, waiting up to `limit`; `None` at the end.
    pub(super) async fn next(
        &mut self,
        limit: Duration,
    ) -> Result<Option<impl AsRef<[u8]> + use<>>, RequestError> {
        loop {
            match timeout(limit, self.body.frame()).await {
                Err(_) => return Err(RequestError::TimedOut(limit)),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(RequestError::Disconnected(describe(&error))),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Returns the parts of the body. `limit` is the longest wait for the end of the body or another [`PROGRESS`] bytes, so that
    /// single bytes do not keep a response alive.
    pub(super) fn into_parts(self, limit: Duration) -> BodyParts {
        BodyParts { response: self, limit, since: Instant::now(), received: 0 }
    }

    /// Returns the whole body, which is `what` in errors and has at most `max` bytes. For `limit`, see [`Response::into_parts`].
    pub(super) async fn whole(
        self,
        limit: Duration,
        what: &str,
        max: usize,
    ) -> Result<Vec<u8>, RequestError> {
        let (mut parts, mut bytes) = (self.into_parts(limit), Vec::new());
        while let Some((data, _)) = parts.next().await? {
            let data = data.as_ref();
            if bytes.len() + data.len() > max {
                return Err(RequestError::TooLarge { what: what.to_owned(), limit: max });
            }
            bytes.extend_from_slice(data);
        }
        Ok(bytes)
    }
}

/// The parts of a body, as they arrive.
pub(super) struct BodyParts {
    response: Response,
    limit: Duration,
    /// The time of the last progress.
    since: Instant,
    /// The number of bytes since then.
    received: usize,
}

impl BodyParts {
    /// Returns the next bytes, and true if another [`PROGRESS`] bytes have arrived; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<(impl AsRef<[u8]> + use<>, bool)>, RequestError> {
        let bytes = self.response.next(self.limit.saturating_sub(self.since.elapsed())).await;
        let Some(bytes) = bytes.map_err(|error| error.with_limit(self.limit))? else { return Ok(None) };
        self.received += bytes.as_ref().len();
        let has_progress = self.received >= PROGRESS;
        if has_progress {
            (self.since, self.received) = (Instant::now(), 0);
        }
        Ok(Some((bytes, has_progress)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use kube::Config;
    use portcullis_cluster::{Event, Kind};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::list_page::PageReader;
    use super::*;
    use crate::source::object_reader::ObjectReader;

    const TIMEOUT: Duration = Duration::from_secs(60);

    /// Returns a client of a server that sends `head`, and then `part` for ever.
    async fn client(head: Vec<u8>, part: Vec<u8>) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback works");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let (head, part) = (head.clone(), part.clone());
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    _ = connection.read(&mut request).await;
                    _ = connection.write_all(&head).await;
                    while !part.is_empty() && connection.write_all(&part).await.is_ok() {}
                });
            }
        });
        let url = format!("http://{address}").parse().expect("an address");
        let mut config = Config::new(url);
        config.default_retry = false;
        Client::try_from(config).expect("no file is read")
    }

    async fn send(head: impl Into<Vec<u8>>, part: impl Into<Vec<u8>>) -> Result<Response, RequestError> {
        let request = http::Request::get("/api/v1/pods").body(Body::empty()).expect("a request");
        send_request(&client(head.into(), part.into()).await, request, TIMEOUT).await
    }

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";

    #[tokio::test]
    async fn endless_page_ends_at_the_limit_of_an_object_and_of_the_number_of_objects() {
        let item = |size: usize| format!(r#"{{"metadata":{{"name":"{}"}}}},"#, "a".repeat(size));
        // How the body begins, what follows for ever, and the error.
        let rows = [
            (
                r#"{"metadata":{"a":""#.to_owned(),
                "b".repeat(1 << 16),
                "a list without its items in a list of pods has more than 64 KiB",
            ),
            (
                r#"{"items":[{"metadata":{"name":""#.to_owned(),
                "b".repeat(1 << 16),
                "an object in a list of pods has more than 16 MiB",
            ),
            (r#"{"items":["#.to_owned(), item(1).repeat(1 << 12), "more than 1000 objects in a list of pods"),
        ];
        for (begin, part, expected) in rows {
            let mut response = send(format!("{OK}{begin}"), part).await.expect("a success");
            let mut reader = ObjectReader::new(Kind::Pod).with_max_listed_objects(1_000);
            let mut page = PageReader::new(Kind::Pod, true, &mut reader);
            let error = loop {
                let bytes = response.next(TIMEOUT).await.expect("bytes").expect("it has no end");
                if let Err(error) = page.push(bytes.as_ref()) {
                    break error.to_string();
                }
                page.events.retain(|event| matches!(event, Event::Listed(_)));
            };
            assert!(error.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn compressed_list_is_limited_by_its_decompressed_size() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(br#"{"items":[{"metadata":{"name":""#).expect("memory can be written");
        for _ in 0..64 {
            encoder.write_all(&[b'b'; 1 << 20]).expect("memory can be written");
        }
        let compressed = encoder.finish().expect("memory can be written");
        assert!(compressed.len() < 1 << 20, "{}", compressed.len());
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\r\n";
        let mut response = send(head, compressed).await.expect("a success");
        let mut reader = ObjectReader::new(Kind::Pod);
        let mut page = PageReader::new(Kind::Pod, true, &mut reader);
        let error = loop {
            let bytes = response.next(TIMEOUT).await.expect("bytes").expect("it has no end");
            assert!(bytes.as_ref().len() <= 1 << 20, "it is decompressed in parts");
            if let Err(error) = page.push(bytes.as_ref()) {
                break error.to_string();
            }
        };
        assert!(error.contains("an object in a list of pods has more than 16 MiB"), "{error}");
    }

    #[tokio::test]
    async fn other_bodies_and_headers_are_limited() {
        let response = send(OK, "x".repeat(1 << 12)).await.expect("a success");
        let error = response.whole(TIMEOUT, "the discovery document", 1 << 20).await.expect_err("no end");
        assert!(error.to_string().contains("the discovery document has more than 1 MiB"), "{error}");
        // Of an error without end, the status is used.
        let error =
            send("HTTP/1.1 503 Overloaded\r\n\r\n", "x".repeat(1 << 12)).await.err().expect("an error");
        assert!(error.to_string().contains("503"), "{error}");
        let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "a".repeat(1 << 20));
        let error = send(long, "").await.err().expect("the head is too large");
        assert!(matches!(error, RequestError::Unreachable(_)), "{error}");
        let encoded = "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\n";
        let error = send(encoded, "").await.err().expect("it was not requested");
        assert!(error.to_string().contains("br") && error.to_string().contains("not requested"), "{error}");
        let moved =
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        let error = send(moved, "").await.err().expect("it is not followed");
        assert!(error.to_string().contains("307"), "{error}");
    }
}
