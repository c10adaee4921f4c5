//! The fuzz targets with any compiler: their corpus, and a bounded number of mutations of it.
//!
//! `FUZZ_RUNS` sets the number of mutations for each target, `FUZZ_SEED` where they begin: the same ones unless told
//! otherwise, so that a change is judged by what it changed; `0` is anywhere.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::*;

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

/// A text of the words that the language is made of, or any text.
fn text() -> impl Strategy<Value = String> {
    let words = proptest::collection::vec(proptest::sample::select(&WORDS[..]), 0..12);
    prop_oneof![3 => words.prop_map(|words| words.concat()), 1 => any::<String>()]
}

/// An item of a rules file, its texts in quotes that YAML reads as they are; now and then a piece of anything.
fn item() -> impl Strategy<Value = String> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let (name, texts) = ("[a-d]{1,2}", proptest::collection::vec(text(), 4));
    let well_formed = (0..4, name, texts, any::<bool>()).prop_map(move |(kind, name, texts, append)| {
        let [one, two, three, four] = [0, 1, 2, 3].map(|at| quoted(&texts[at]));
        let append = if append { "\n  append: true" } else { "" };
        match kind {
            0 => format!("- list: {name}\n  items: [{one}, {two}, {name}]{append}\n"),
            1 => format!("- macro: {name}\n  condition: {one}{append}\n"),
            2 => format!("- rule: {name}\n  condition: {one}\n  override: {{condition: append}}\n"),
            _ => format!(
                "- rule: {name}\n  desc: {one}\n  condition: {two}\n  output: {three}\n  priority: INFO\n  \
                 exceptions: [{{name: e, fields: [proc.name], values: [[{four}]]}}]\n"
            ),
        }
    });
    prop_oneof![8 => well_formed, 1 => text()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// The same must hold for what a generator makes that knows the shapes.
    #[test]
    fn generated_texts(text in text()) {
        targets::lexer(text.as_bytes());
        targets::condition(text.as_bytes());
        targets::output(text.as_bytes());
    }

    #[test]
    fn generated_rules_files(items in proptest::collection::vec(item(), 0..5)) {
        targets::rules_file(items.concat().as_bytes());
    }
}
