//! Tools of the host, with a chosen variant of iptables.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use portcullis_lab::NetNs;

/// Variant of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    Nft,
    Legacy,
}

impl Flavour {
    /// Returns a search path with this variant as `iptables`; `folder` is for symbolic links.
    pub(crate) fn path(self, folder: &Path) -> String {
        let program = match self {
            Self::Nft => "/usr/sbin/xtables-nft-multi",
            Self::Legacy => "/usr/sbin/xtables-legacy-multi",
        };
        assert!(Path::new(program).exists(), "{program} is not there; install Debian's package iptables");
        for base in ["iptables", "ip6tables"] {
            for action in ["", "-save", "-restore"] {
                symlink(program, folder.join(format!("{base}{action}"))).unwrap();
            }
        }
        format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
    }

    /// Returns the name of a tool of this variant, independent of the search path.
    pub(crate) fn tool(self, base: &str, action: &str) -> String {
        match self {
            Self::Nft => format!("{base}-nft{action}"),
            Self::Legacy => format!("{base}-legacy{action}"),
        }
    }
}

/// Returns the output of a command with this input; it must succeed.
pub(crate) fn output_of(command: &mut Command, text: &str) -> String {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}\n{text}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the output of a command, which must succeed.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the HTTP response including headers to a request from inside a namespace.
pub(crate) fn http_get(netns: &NetNs, address: &str, path: &str) -> io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    let get = || {
        let wait = Duration::from_secs(5);
        let mut stream = TcpStream::connect_timeout(&address, wait)?;
        stream.set_read_timeout(Some(wait))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: node\r\n\r\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    netns.run(get).unwrap()
}

/// Returns the sum of a metric over the series whose labels contain all of these; 0 without any.
pub(crate) fn sum_of(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let of_name = metrics.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{']))
            && labels.iter().all(|label| line.contains(label))
    });
    of_name.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}
