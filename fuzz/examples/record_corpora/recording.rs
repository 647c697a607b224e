//! A transport that records what the kernel sends.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use portcullis_netlink::socket::{Datagram, KernelTransport, SocketOptions, Transport, with_transports};

/// Runs `action`, and writes everything that its sockets receive to the file `name` in `folder`.
pub(crate) fn record(folder: &Path, name: &str, action: impl FnOnce()) {
    let received: Arc<Mutex<Vec<u8>>> = Arc::default();
    let shared = Arc::clone(&received);
    let open = move |request: &portcullis_netlink::socket::OpenRequest<'_>| {
        let kernel = request.open_in_kernel().map_err(io::Error::other)?;
        Ok(Box::new(Recording { kernel, received: Arc::clone(&shared) }) as Box<dyn Transport>)
    };
    with_transports(open, action);
    fs::create_dir_all(folder).unwrap();
    let received = received.lock().unwrap();
    assert!(!received.is_empty(), "nothing was received for {name}");
    fs::write(folder.join(format!("recorded-{name}")), &*received).unwrap();
    println!("{}/recorded-{name}: {} bytes", folder.display(), received.len());
}

#[derive(Debug)]
struct Recording {
    kernel: KernelTransport,
    received: Arc<Mutex<Vec<u8>>>,
}

impl Transport for Recording {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.kernel.send(bytes)
    }

    fn receive(&mut self, buffer: &mut Vec<u8>, is_nonblocking: bool) -> io::Result<Datagram> {
        let datagram = self.kernel.receive(buffer, is_nonblocking)?;
        self.received.lock().unwrap().extend_from_slice(&buffer[..datagram.length]);
        Ok(datagram)
    }

    fn wait(&self, other: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.kernel.wait(other)
    }

    fn options(&self) -> &dyn SocketOptions {
        &self.kernel
    }
}
