//! Benchmark of the CNI plugin and of the wirings, each compared with a baseline in the same run.
//!
//! `make bench` runs it, as root. `--plugin PATH` names the plugin, else it is the binary of the same build; `--rounds N` the number of
//! rounds (results are medians), and `--parts lifecycle,concurrent,traffic,nodes,memory` what is measured.
//!
//! The baseline of `ADD` and `DEL` is this program, which makes the same links, addresses, routes, neighbours and settings and does
//! nothing else; and the reference plugins with `host-local`. All are started as processes, alternately.

mod bare;
mod between_nodes;
mod contender;
mod daemon;
mod load;
mod node;
#[allow(dead_code, reason = "other benchmarks use the rest of it")]
#[path = "../../../benches/services/process.rs"]
mod process;
mod traffic;

use std::env;
use std::time::Duration;

use contender::{Contender, Cost};

struct Arguments {
    plugin: String,
    rounds: usize,
    parts: Vec<String>,
}

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == bare::COMMAND) {
        return bare::run(&words[1..]);
    }
    let value = |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
    let arguments = Arguments {
        plugin: value("--plugin").cloned().unwrap_or_else(built_plugin),
        rounds: value("--rounds").map_or(30, |rounds| rounds.parse().expect("--rounds is a number")),
        parts: value("--parts")
            .map_or("lifecycle,concurrent,traffic,nodes,memory", String::as_str)
            .split(',')
            .map(str::to_owned)
            .collect(),
    };
    let has = |part: &str| arguments.parts.iter().any(|other| other == part);
    if has("lifecycle") {
        lifecycle(&arguments);
    }
    if has("concurrent") {
        concurrent(&arguments);
    }
    if has("traffic") {
        traffic::measure(&arguments.plugin, arguments.rounds);
    }
    if has("nodes") {
        between_nodes::measure(&arguments.plugin, 2 * arguments.rounds);
    }
    if has("memory") {
        daemon::measure(&arguments.plugin, arguments.rounds.min(5));
    }
}

/// Returns the binary of the same build: it lies two folders above the benchmark.
fn built_plugin() -> String {
    let program = env::current_exe().expect("Linux knows it");
    let folder = program.ancestors().nth(2).expect("it is in target/release/deps");
    folder.join("portcullis").display().to_string()
}

/// Prints the times of `ADD` and `DEL` of a pod with both families.
fn lifecycle(arguments: &Arguments) {
    let contenders = Contender::all(&arguments.plugin);
    let mut samples = vec![(Vec::new(), Vec::new()); contenders.len()];
    for round in 0..=arguments.rounds {
        for (contender, (adds, dels)) in contenders.iter().zip(&mut samples) {
            let pod = node::Netns::new();
            let added = contender.add(&pod);
            let deleted = contender.del(&pod);
            // The first round makes bridges, and reads programs from the disk.
            if round > 0 {
                adds.push(added);
                dels.push(deleted);
            }
        }
    }
    println!(
        "ADD and DEL of a pod with both families, {} rounds: median (minimum) in ms, and median processor time\n",
        arguments.rounds
    );
    println!("| program | ADD | processor | DEL | processor |\n| --- | --- | --- | --- | --- |");
    for (contender, (adds, dels)) in contenders.iter().zip(&mut samples) {
        println!("| {} | {} | {} |", contender.name(), figures(adds), figures(dels));
    }
    println!();
}

fn figures(samples: &mut [Cost]) -> String {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let middle = samples.len() / 2;
    samples.sort_by_key(|cost| cost.processor);
    let processor = ms(samples[middle].processor);
    samples.sort_by_key(|cost| cost.time);
    format!("{:.1} ({:.1}) | {processor:.2}", ms(samples[middle].time), ms(samples[0].time))
}

/// Prints the time per pod of 100 `ADD`, one after the other and concurrently.
fn concurrent(arguments: &Arguments) {
    const PODS: usize = 100;
    println!("{PODS} ADD of pods with both families: ms per pod\n");
    println!("| program | sequential | concurrent |\n| --- | --- | --- |");
    for contender in Contender::all(&arguments.plugin).into_iter().filter(|contender| !contender.is_bare()) {
        let mut times = [false, true].map(|is_concurrent| {
            let pods: Vec<_> = (0..PODS).map(|_| node::Netns::new()).collect();
            let started = std::time::Instant::now();
            if is_concurrent {
                std::thread::scope(|scope| {
                    for pod in &pods {
                        scope.spawn(|| contender.add(pod));
                    }
                });
            } else {
                pods.iter().for_each(|pod| _ = contender.add(pod));
            }
            let time = started.elapsed().as_secs_f64() * 1e3 / PODS as f64;
            pods.iter().for_each(|pod| _ = contender.del(pod));
            format!("{time:.1}")
        });
        let [sequential, concurrent] = times.each_mut();
        println!("| {} | {sequential} | {concurrent} |", contender.name());
    }
    println!();
}
