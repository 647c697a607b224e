//! `lab observe`: traffic events of the nodes of a running lab.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;

use crate::daemon::socket_path;
use crate::error::{Error, Result};
use crate::lab_record::LabRecord;

/// The exit status of an `observe` that did not end by itself.
const FAILED: i32 = 2;

/// Runs `observe` of the program that runs on the nodes, for one node or all of them. Each line of several nodes starts with the
/// name of the node; a JSON document has it as `node`. Returns the worst exit code. `id` as in [`LabRecord::find`].
///
/// # Errors
/// No such lab or node, or its nodes run no daemon.
pub fn observe(id: Option<&str>, node: Option<&str>, arguments: &[String]) -> Result<i32> {
    let lab = LabRecord::find(id)?;
    let daemon = lab.daemon.as_ref().ok_or_else(|| Error::Background("its nodes run no daemon".into()))?;
    let all: Vec<String> = lab.nodes().map(str::to_owned).collect();
    let nodes: Vec<String> = match node {
        Some(node) if !all.iter().any(|name| name == node) => {
            return Err(Error::not_found("node", node, &all));
        }
        Some(node) => vec![node.to_owned()],
        None => all,
    };
    let is_single = nodes.len() == 1;
    let width = nodes.iter().map(String::len).max().unwrap_or_default();
    let output = Output { has_head: Mutex::new(false), is_closed: AtomicBool::new(false), width };
    let failed =
        |error: &io::Error| Error::Background(format!("cannot run {}: {error}", daemon.binary.display()));
    let mut children = Vec::new();
    for name in &nodes {
        let mut command = Command::new(&daemon.binary);
        command.arg("observe").arg("--socket").arg(socket_path(&lab.folder, name)).args(arguments);
        command.stdout(if is_single { Stdio::inherit() } else { Stdio::piped() });
        end_with_this_process(&mut command);
        match command.spawn() {
            Ok(child) => children.push((name, child)),
            Err(error) => {
                children.iter_mut().for_each(|(_, child)| end(child));
                return Err(failed(&error));
            }
        }
    }
    let codes = thread::scope(|scope| {
        let readers: Vec<_> = children
            .into_iter()
            .map(|(name, child)| {
                let output = &output;
                scope.spawn(move || output.copy(name, child))
            })
            .collect();
        readers.into_iter().map(|reader| reader.join().unwrap_or(FAILED)).max()
    });
    Ok(codes.unwrap_or_default())
}

/// Makes the kernel end a process with this one, also if this one is killed.
fn end_with_this_process(command: &mut Command) {
    use std::os::unix::process::CommandExt;

    // SAFETY: prctl is async-signal-safe and takes no pointers.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

fn end(child: &mut Child) {
    // It may have ended.
    let _ = child.kill();
    let _ = child.wait();
}

/// Standard output, which the observers of all nodes share.
struct Output {
    /// The head of the table was printed.
    has_head: Mutex<bool>,
    /// The reader has closed the pipe.
    is_closed: AtomicBool,
    /// The length of the longest name of a node.
    width: usize,
}

impl Output {
    /// Copies the lines of a node until it ends. Returns its exit code.
    fn copy(&self, node: &str, mut child: Child) -> i32 {
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines().map_while(io::Result::ok) {
                if let Some(line) = self.labelled(node, line)
                    && let Err(error) = writeln!(io::stdout(), "{line}")
                {
                    self.is_closed.store(error.kind() == ErrorKind::BrokenPipe, Ordering::Relaxed);
                    end(&mut child);
                }
            }
        }
        match child.wait().ok().and_then(|status| status.code()) {
            _ if self.is_closed.load(Ordering::Relaxed) => 0,
            code => code.unwrap_or(FAILED),
        }
    }

    /// Returns a line with the name of its node. `None` for the head of the table, except the first.
    fn labelled(&self, node: &str, line: String) -> Option<String> {
        if let Ok(Value::Object(mut document)) = serde_json::from_str(&line) {
            document.entry("node").or_insert_with(|| node.into());
            return Some(Value::Object(document).to_string());
        }
        let width = self.width;
        if line.starts_with("TIME ") {
            let mut has_head = self.has_head.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            return (!std::mem::replace(&mut *has_head, true)).then(|| format!("{:width$}  {line}", "NODE"));
        }
        Some(format!("{node:width$}  {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_nodes_have_their_names() {
        let output = Output { has_head: Mutex::new(false), is_closed: AtomicBool::new(false), width: 6 };
        let head = "TIME (UTC)    VERDICT".to_owned();
        assert_eq!(output.labelled("node-1", head.clone()).as_deref(), Some("NODE    TIME (UTC)    VERDICT"));
        assert_eq!(output.labelled("node-2", head), None);
        assert_eq!(output.labelled("n", "10:43 dropped".into()).as_deref(), Some("n       10:43 dropped"));
        let labelled = |line: &str| output.labelled("node-2", line.to_owned());
        assert_eq!(labelled(r#"{"kind":"Notice"}"#).as_deref(), Some(r#"{"kind":"Notice","node":"node-2"}"#));
        assert_eq!(labelled(r#"{"node":"node-1"}"#).as_deref(), Some(r#"{"node":"node-1"}"#));
    }
}
