#![allow(clippy::unwrap_used)]
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};
struct Rng(u64);
impl Rng { fn next(&mut self) -> u64 { self.0 ^= self.0 << 13; self.0 ^= self.0 >> 7; self.0 ^= self.0 << 17; self.0 } fn below(&mut self, n: usize) -> usize { if n == 0 { 0 } else { (self.next() % n as u64) as usize } } }
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (seconds, seed): (u64, u64) = (args[1].parse().unwrap(), args[2].parse().unwrap());
    let mut words: Vec<Vec<u8>> = Vec::new();
    for f in std::fs::read_dir("fuzz/dictionaries").unwrap() {
        for l in std::fs::read_to_string(f.unwrap().path()).unwrap().lines().skip(1) { words.push(l.trim_matches('"').replace("\\x0d\\x0a", "\r\n").replace("\\x0a","\n").into_bytes()); }
    }
    panic::set_hook(Box::new(|_| {}));
    for target in portcullis_fuzz::TARGETS {
        if args.len() > 3 && !args[3..].iter().any(|a| a == target.name) { continue; }
        let mut corpus: Vec<Vec<u8>> = std::fs::read_dir(format!("fuzz/corpus/{}", target.name)).unwrap().map(|f| std::fs::read(f.unwrap().path()).unwrap()).collect();
        corpus.sort();
        let mut rng = Rng(seed.wrapping_mul(0x9E3779B97F4A7C15) | 1);
        let end = Instant::now() + Duration::from_secs(seconds);
        let (mut n, mut faults, mut slow) = (0u64, std::collections::BTreeMap::<String, usize>::new(), Duration::ZERO);
        while Instant::now() < end {
            let mut input = corpus[rng.below(corpus.len())].clone();
            for _ in 0..1 + rng.below(6) {
                let at = rng.below(input.len() + 1);
                match rng.below(9) {
                    0 if at < input.len() => input[at] = rng.next() as u8,
                    1 if at < input.len() => input[at] ^= 1 << rng.below(8),
                    2 => { let end = (at + 1 + rng.below(16)).min(input.len()); input.drain(at.min(end)..end); }
                    3 => { let w = &words[rng.below(words.len())]; input.splice(at..at, w.iter().copied()); }
                    4 => { let end = (at + 1 + rng.below(64)).min(input.len()); let c = input[at.min(end)..end].to_vec(); let to = rng.below(input.len() + 1); input.splice(to..to, c); }
                    5 => { let o = &corpus[rng.below(corpus.len())]; let s = rng.below(o.len() + 1); let e = (s + rng.below(200)).min(o.len()); let c = o[s..e].to_vec(); input.splice(at..at, c); }
                    6 => { let w = &words[rng.below(words.len())]; let end = (at + w.len()).min(input.len()); input.splice(at..end, w.iter().copied()); }
                    7 if at + 4 <= input.len() => { let v = [0u32, 1, 4, 0xffff, 0xffff_ffff, 0x7fff_ffff, 16, 8][rng.below(8)]; input[at..at + 4].copy_from_slice(&v.to_ne_bytes()); }
                    _ => input.truncate(at.max(1)),
                }
            }
            n += 1;
            let start = Instant::now();
            let r = panic::catch_unwind(AssertUnwindSafe(|| target.run(&input)));
            slow = slow.max(start.elapsed());
            if let Err(p) = r {
                let m = p.downcast_ref::<String>().cloned().or_else(|| p.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default();
                let key: String = m.chars().take(60).collect();
                let count = faults.entry(key).or_default();
                *count += 1;
                if *count == 1 { std::fs::write(format!("/tmp/w/h7.mut/{}-{}", target.name, n), &input).unwrap(); println!("FAULT {} #{n}: {}", target.name, m.chars().take(900).collect::<String>()); }
            }
        }
        println!("{}: {n} inputs, slowest {slow:?}, faults {faults:?}", target.name);
    }
}
