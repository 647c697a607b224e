//! Workers that are killed by SIGKILL after a random time. What they reported as done must hold.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use libtest_mimic::Failed;

use super::worker::{addresses, random};

const WORKERS: usize = 6;
const KILLS: usize = 200;

/// A worker process; killed when dropped.
struct Worker {
    child: Child,
    name: String,
}

impl Worker {
    fn start(folder: &Path, name: &str, seed: u64) -> Result<Self, Failed> {
        let child = Command::new(super::this_program())
            .args(["worker".as_ref(), folder.as_os_str(), name.as_ref(), seed.to_string().as_ref()])
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// Kills the process, and returns what it reported.
    fn kill(mut self) -> Result<String, Failed> {
        if let Some(status) = self.child.try_wait()? {
            return Err(format!("worker {} ended: {status}", self.name).into());
        }
        self.child.kill()?;
        self.child.wait()?;
        let mut output = String::new();
        self.child.stdout.take().expect("piped").read_to_string(&mut output)?;
        Ok(output)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn test() -> Result<(), Failed> {
    let folder = tempfile::tempdir_in("/dev/shm")?;
    let store = folder.path();
    let mut state = 0x2545_f491_4f6c_dd1d ^ u64::from(std::process::id());
    println!("seed {state}");
    let mut seed = || random(&mut state);
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        workers.push(Worker::start(store, &format!("worker{number}"), seed())?);
    }
    let (mut additions, mut exhaustions) = (0, 0);
    for _ in 0..KILLS {
        thread::sleep(Duration::from_micros(seed() % 15_000));
        let worker = workers.swap_remove(seed() as usize % WORKERS);
        let name = worker.name.clone();
        let output = worker.kill()?;
        additions += output.matches("added ").count();
        exhaustions += output.matches("exhausted ").count();
        check_reports(store, &output)?;
        workers.push(Worker::start(store, &name, seed())?);
    }
    for worker in workers {
        check_reports(store, &worker.kill()?)?;
    }
    println!("{additions} additions, {exhaustions} exhausted");
    if additions == 0 {
        return Err("no worker added anything".into());
    }
    // Recovers what the last one left.
    let store_of = super::open(store);
    store_of.remove(&super::worker::key("none", 0))?;
    super::held_addresses(store)?;
    store_of.remove_all_except(&[], |_| Ok(()))?;
    let left = super::held_addresses(store)?;
    if left.is_empty() { Ok(()) } else { Err(format!("leaked: {left:?}").into()) }
}

/// Compares the last report of a killed worker about each attachment with the store.
fn check_reports(store: &Path, output: &str) -> Result<(), Failed> {
    let mut last: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    // The last line may be cut off.
    let complete = output.rsplit_once('\n').map_or("", |(lines, _)| lines);
    for line in complete.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(event), Some(key)) = (words.next(), words.next()) else {
            return Err(format!("unexpected line {line:?}").into());
        };
        last.insert(key, (event, words.next().unwrap_or_default()));
    }
    for (text, (event, reported)) in last {
        let (container, interface) = text.split_once('@').expect("a key");
        let key = portcullis_podnet::addresses::AttachmentKey::new(container, interface)?;
        let found = super::open(store).get(&key)?.map(|attachment| addresses(&attachment));
        let is_right = match event {
            "added" => found.as_deref() == Some(reported),
            "removed" => found.is_none(),
            // Interrupted: either all or nothing.
            _ => true,
        };
        if !is_right {
            return Err(format!("{text} was {event} {reported}, and the store has {found:?}").into());
        }
    }
    Ok(())
}
