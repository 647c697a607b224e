//! An API server that costs as little processor time as possible, so that it does not slow the daemon on the same machine: a thread
//! for each connection, and objects that are written as text. The server of the tests has more behaviour and costs ten times as much.
//!
//! It serves lists in pages, streaming lists and watches of the cluster's resources, with gzip if it is accepted: for lists of more
//! than 128 KiB, and, if that is enabled, for streaming lists (feature gate `WatchListCompression`).

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::cluster::{Cluster, Resource};

/// The size of the pieces in which a list is written, in bytes.
const WRITE_SIZE: usize = 64 << 10;

/// Responses of this size are compressed, as by kube-apiserver.
const MIN_COMPRESSED: usize = 128 << 10;

/// How the server serves lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Lists {
    /// Streaming lists
    #[default]
    Streaming,
    /// Streaming lists, compressed
    StreamingGzip,
    /// Pages of the size that the client requests
    Pages,
    /// Pages, compressed
    PagesGzip,
}

impl Lists {
    fn is_streaming(self) -> bool {
        matches!(self, Lists::Streaming | Lists::StreamingGzip)
    }

    fn is_compressed(self) -> bool {
        matches!(self, Lists::StreamingGzip | Lists::PagesGzip)
    }
}

/// What was sent about a resource.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) requests: usize,
    pub(crate) objects: usize,
    /// JSON.
    pub(crate) bytes: usize,
    /// The same as transferred.
    pub(crate) transferred: usize,
}

/// A watch event as it is sent.
type Line = Arc<[u8]>;

struct Shared {
    cluster: RwLock<Cluster>,
    lists: Lists,
    watches: Mutex<HashMap<Resource, Vec<Sender<Line>>>>,
    sent: Mutex<BTreeMap<Resource, Sent>>,
}

/// The server. Its threads end with the process.
pub(crate) struct ApiServer {
    shared: Arc<Shared>,
    address: SocketAddr,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds the lock")
}

impl ApiServer {
    /// Starts a server on loopback, in the network namespace of this thread.
    pub(crate) fn start(cluster: Cluster, lists: Lists) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            cluster: RwLock::new(cluster),
            lists,
            watches: Mutex::default(),
            sent: Mutex::default(),
        });
        let of_threads = shared.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shared = of_threads.clone();
                // The client closes connections when it ends.
                std::thread::spawn(move || drop(shared.serve(connection)));
            }
        });
        ApiServer { shared, address }
    }

    /// Writes a kubeconfig, and returns its path.
    pub(crate) fn kubeconfig(&self, folder: &Path) -> PathBuf {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "bench", "user": {"token": "bench"}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        });
        let path = folder.join("kubeconfig");
        std::fs::write(&path, config.to_string()).expect("the folder can be written");
        path
    }

    /// Returns the cluster, to add pods.
    pub(crate) fn cluster_mut(&self) -> RwLockWriteGuard<'_, Cluster> {
        self.shared.cluster.write().expect("no thread panics while it holds the lock")
    }

    /// Returns the cluster.
    pub(crate) fn cluster(&self) -> RwLockReadGuard<'_, Cluster> {
        self.shared.cluster()
    }

    /// Sends a watch event to all watches of a resource.
    pub(crate) fn send(&self, resource: Resource, event: &str, object: &[u8]) {
        let mut line = format!("{{\"type\":\"{event}\",\"object\":").into_bytes();
        line.extend_from_slice(object);
        line.extend_from_slice(b"}\n");
        let line: Line = line.into();
        let mut watches = lock(&self.shared.watches);
        watches.entry(resource).or_default().retain(|watch| watch.send(line.clone()).is_ok());
    }

    /// Returns what was sent since the last call.
    pub(crate) fn take_sent(&self) -> BTreeMap<Resource, Sent> {
        std::mem::take(&mut lock(&self.shared.sent))
    }
}

/// The head of a request.
struct Head {
    method: String,
    path: String,
    query: HashMap<String, String>,
    accepts_gzip: bool,
    body_length: usize,
}

impl Head {
    /// Reads a request; `None` at the end of the connection.
    fn read(connection: &mut BufReader<TcpStream>) -> std::io::Result<Option<Head>> {
        let mut line = String::new();
        if connection.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let mut head = Head {
            method: method.to_owned(),
            path: path.to_owned(),
            query,
            accepts_gzip: false,
            body_length: 0,
        };
        loop {
            let mut line = String::new();
            connection.read_line(&mut line)?;
            let line = line.trim_end().to_ascii_lowercase();
            match line.split_once(':') {
                None => return Ok(Some(head)),
                Some(("accept-encoding", value)) => head.accepts_gzip = value.contains("gzip"),
                Some(("content-length", value)) => head.body_length = value.trim().parse().unwrap_or(0),
                Some(_) => {}
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        self.query.get(name).is_some_and(|value| value == "true")
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.query.get(name)?.parse().ok()
    }
}

impl Shared {
    fn cluster(&self) -> RwLockReadGuard<'_, Cluster> {
        self.cluster.read().expect("no thread panics while it holds the lock")
    }

    fn serve(&self, connection: TcpStream) -> std::io::Result<()> {
        connection.set_nodelay(true)?;
        let mut out = connection.try_clone()?;
        let mut input = BufReader::new(connection);
        while let Some(head) = Head::read(&mut input)? {
            std::io::copy(&mut (&mut input).take(head.body_length as u64), &mut std::io::sink())?;
            let resource = Resource::at(&head.path).filter(|_| head.method == "GET");
            let is_streaming_list = head.has("sendInitialEvents");
            match resource {
                None => respond(&mut out, 404, "", b"404 page not found\n")?,
                Some(_) if is_streaming_list && !self.lists.is_streaming() => {
                    let status = json!({
                        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Invalid", "code": 422,
                        "message": "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
                    });
                    respond(&mut out, 422, "", status.to_string().as_bytes())?;
                }
                // The connection ends with the watch.
                Some(resource) if head.has("watch") => {
                    let is_compressed = is_streaming_list && head.accepts_gzip && self.lists.is_compressed();
                    return self.watch(resource, &head, is_compressed, out);
                }
                Some(resource) => self.page(resource, &head, &mut out)?,
            }
        }
        Ok(())
    }

    /// Returns the numbers of the objects that a request selects: of one node, or all.
    fn selected(&self, resource: Resource, head: &Head) -> usize {
        let is_one =
            head.query.get("fieldSelector").is_some_and(|fields| fields.starts_with("metadata.name="));
        if is_one { 1 } else { self.cluster().count(resource) }
    }

    fn page(&self, resource: Resource, head: &Head, out: &mut TcpStream) -> std::io::Result<()> {
        let all = self.selected(resource, head);
        let start = head.number("continue").unwrap_or(0);
        let end = head.number("limit").map_or(all, |limit| all.min(start + limit));
        let (kind, version) = resource.kind();
        let mut metadata = json!({"resourceVersion": "1"});
        if end < all {
            metadata["continue"] = end.to_string().into();
            metadata["remainingItemCount"] = (all - end).into();
        }
        let mut body =
            format!(r#"{{"kind":"{kind}List","apiVersion":"{version}","metadata":{metadata},"items":["#)
                .into_bytes();
        let cluster = self.cluster();
        for n in start..end {
            if n > start {
                body.push(b',');
            }
            cluster.write(resource, n, &mut body);
        }
        drop(cluster);
        body.extend_from_slice(b"]}\n");
        let bytes = body.len();
        let (headers, body) = match head.accepts_gzip && self.lists.is_compressed() && bytes > MIN_COMPRESSED
        {
            true => ("Content-Encoding: gzip\r\n", compress(&body)?),
            false => ("", body),
        };
        let mut sent = lock(&self.sent);
        let sent_of = sent.entry(resource).or_default();
        sent_of.requests += 1;
        sent_of.objects += end - start;
        sent_of.bytes += bytes;
        sent_of.transferred += body.len();
        drop(sent);
        respond(out, 200, headers, &body)
    }

    fn watch(
        &self,
        resource: Resource,
        head: &Head,
        is_compressed: bool,
        out: TcpStream,
    ) -> std::io::Result<()> {
        let (sender, events) = channel();
        let mut stream = Stream::begin(out, is_compressed)?;
        let is_list = head.has("sendInitialEvents");
        if is_list {
            let all = self.selected(resource, head);
            let mut lines = Vec::new();
            for n in 0..all {
                lines.extend_from_slice(br#"{"type":"ADDED","object":"#);
                self.cluster().write(resource, n, &mut lines);
                lines.extend_from_slice(b"}\n");
                stream.push(&lines)?;
                lines.clear();
            }
            let (kind, version) = resource.kind();
            let end = json!({"type": "BOOKMARK", "object": {
                "kind": kind, "apiVersion": version,
                "metadata": {"resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"}},
            }});
            stream.push(format!("{end}\n").as_bytes())?;
            stream.flush()?;
            let mut sent = lock(&self.sent);
            let sent_of = sent.entry(resource).or_default();
            sent_of.requests += 1;
            sent_of.objects += all;
            sent_of.bytes += std::mem::take(&mut stream.bytes);
            sent_of.transferred += std::mem::take(&mut stream.transferred);
        }
        // No object changes before all lists are complete.
        lock(&self.watches).entry(resource).or_default().push(sender);
        self.follow(resource, &events, stream)
    }

    fn follow(&self, resource: Resource, events: &Receiver<Line>, mut stream: Stream) -> std::io::Result<()> {
        while let Ok(line) = events.recv() {
            stream.push(&line)?;
            stream.flush()?;
            let mut sent = lock(&self.sent);
            let sent_of = sent.entry(resource).or_default();
            sent_of.objects += 1;
            sent_of.bytes += std::mem::take(&mut stream.bytes);
            sent_of.transferred += std::mem::take(&mut stream.transferred);
        }
        Ok(())
    }
}

/// A chunked response, with a chunk for each event unless it is compressed.
struct Stream {
    out: TcpStream,
    chunks: Vec<u8>,
    encoder: Option<GzEncoder<Vec<u8>>>,
    bytes: usize,
    transferred: usize,
}

impl Stream {
    fn begin(mut out: TcpStream, is_compressed: bool) -> std::io::Result<Self> {
        let encoding = if is_compressed { "Content-Encoding: gzip\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{encoding}Transfer-Encoding: chunked\r\n\r\n"
        );
        out.write_all(head.as_bytes())?;
        let encoder = is_compressed.then(|| GzEncoder::new(Vec::new(), Compression::fast()));
        Ok(Stream { out, chunks: Vec::with_capacity(2 * WRITE_SIZE), encoder, bytes: 0, transferred: 0 })
    }

    fn push(&mut self, line: &[u8]) -> std::io::Result<()> {
        self.bytes += line.len();
        match &mut self.encoder {
            Some(encoder) => {
                encoder.write_all(line)?;
                if encoder.get_ref().len() >= WRITE_SIZE {
                    self.flush()?;
                }
            }
            None => {
                push_chunk(&mut self.chunks, line);
                if self.chunks.len() >= WRITE_SIZE {
                    self.flush()?;
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if let Some(encoder) = &mut self.encoder {
            encoder.flush()?;
            let compressed = std::mem::take(encoder.get_mut());
            push_chunk(&mut self.chunks, &compressed);
        }
        self.transferred += self.chunks.len();
        self.out.write_all(&self.chunks)?;
        self.chunks.clear();
        Ok(())
    }
}

fn push_chunk(chunks: &mut Vec<u8>, bytes: &[u8]) {
    chunks.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
    chunks.extend_from_slice(bytes);
    chunks.extend_from_slice(b"\r\n");
}

fn compress(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

fn respond(out: &mut TcpStream, code: u16, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {code} Status\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    out.write_all(head.as_bytes())?;
    out.write_all(body)
}
