//! The fuzz targets with any compiler: their corpus, and a bounded number of mutations of it.
//!
//! `FUZZ_RUNS` sets the number of mutations for each target, `FUZZ_SEED` where they begin: the same ones unless told
//! otherwise, so that a change is judged by what it changed; `0` is anywhere.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

#[path = "../fuzz/targets.rs"]
mod targets;

/// Words that texts of the language are made of; libFuzzer finds them by itself.
const WORDS: [&str; 40] = [
    " and ",
    " or ",
    "not ",
    "not(",
    "(",
    ")",
    "\"",
    "'",
    "\\",
    ",",
    "=",
    " in ",
    " in (",
    " = ",
    " exists",
    "val(",
    "tolower(",
    "getopt(",
    "proc.name",
    "evt.type",
    "evt.arg.flags",
    "fd.sip",
    "proc.aname[1]",
    "[",
    "]",
    "%",
    "%proc.name",
    " anyof (",
    " pmatch ",
    "0x1f",
    "1e+5",
    "\0",
    "é",
    "\u{feff}",
    "\n",
    "\n- rule: r\n",
    "\n  condition: ",
    ": ",
    " #",
    "open",
];

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { (self.draw() % limit as u64) as usize }
    }
}

fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut data = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(data.len() + 1);
        match random.below(8) {
            0 if at < data.len() => data[at] = random.draw() as u8,
            1 if at < data.len() => drop(data.remove(at)),
            2 => data.insert(at, random.draw() as u8),
            3 | 4 => drop(data.splice(at..at, WORDS[random.below(WORDS.len())].bytes())),
            5 => data.truncate(at),
            6 => {
                let to = (at + random.below(24)).min(data.len());
                let part = data[at..to].to_vec();
                let place = random.below(data.len() + 1);
                drop(data.splice(place..place, part));
            }
            _ => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                drop(data.splice(at.., other[from..].iter().copied()));
            }
        }
        data.truncate(4096);
    }
    data
}

fn fuzz(name: &str, runs: usize, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let corpus: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(!corpus.is_empty(), "{} is empty", folder.display());
    for data in &corpus {
        target(data);
    }

    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
    let seed = number("FUZZ_SEED").filter(|seed| *seed != 0).or_else(|| std::env::var("FUZZ_SEED").ok().map(|_| now()));
    let seed = seed.unwrap_or(1) | 1;
    let runs = number("FUZZ_RUNS").map_or(runs, |runs| runs as usize);
    let mut random = Random(seed);
    for _ in 0..runs {
        let data = mutate(&corpus, &mut random);
        let outcome = std::panic::catch_unwind(|| target(&data));
        assert!(outcome.is_ok(), "{name} with FUZZ_SEED={seed} fails for {:?}", String::from_utf8_lossy(&data));
    }
    // The runner holds back what a passing test prints, and this is to be seen.
    let line = format!("fuzz {name}: {} of the corpus and {runs} mutations, FUZZ_SEED={seed}\n", corpus.len());
    let _not_that_important = std::io::stdout().write_all(line.as_bytes());
}

#[test]
fn lexer() {
    fuzz("lexer", 5_000, targets::lexer);
}

#[test]
fn condition() {
    fuzz("condition", 5_000, targets::condition);
}

#[test]
fn output() {
    fuzz("output", 5_000, targets::output);
}

#[test]
fn rules_file() {
    fuzz("rules_file", 500, targets::rules_file);
}
