//! What it costs to validate and render rules: `cargo bench --bench render`. Prints a table; asserts nothing about time.

use std::time::{Duration, Instant};

use falco_operator::api::{FalcoList, FalcoListSpec, FalcoMacro, FalcoMacroSpec, FalcoRule};
use falco_operator::language::Catalog;
use falco_operator::render::{Input, Names, Policy, render};

const RULES: usize = 10_000;
const ROUNDS: usize = 7;

/// A rule of the size of Falco's own ones.
fn rule(number: usize) -> FalcoRule {
    let text = format!(
        "
metadata: {{name: rule-{number}, generation: 1}}
spec:
  rule: Write below etc {number}
  desc: >
    An attempt to write to any file below /etc by a program that does not belong to the base system of the container.
  condition: >
    spawned and (evt.type in (open, openat, openat2) or evt.type = creat) and evt.is_open_write = true
    and fd.typechar = 'f' and fd.num >= 0 and fd.name startswith /etc/app-{number}
    and not proc.name in (package_managers) and not proc.pname in (package_managers)
    and not (proc.name = sed and proc.args contains \"-i\" or proc.cmdline startswith \"confd --number {number}\")
    and container.id != host and not user_known_write
  output: >
    File below /etc opened for writing (file=%fd.name pcmdline=%proc.pcmdline gparent=%proc.aname[2]
    evt_type=%evt.type user=%user.name user_uid=%user.uid process=%proc.name command=%proc.cmdline terminal=%proc.tty)
  priority: ERROR
  tags: [filesystem, mitre_persistence]
"
    );
    serde_yaml::from_str(&text.replace("\n    evt_type", " evt_type")).expect("the rule is one")
}

struct Namespace {
    name: String,
    rules: Vec<FalcoRule>,
    macros: Vec<FalcoMacro>,
    lists: Vec<FalcoList>,
}

fn namespaces(count: usize) -> Vec<Namespace> {
    let macro_ = |name: &str, condition: &str| {
        FalcoMacro::new(name, FalcoMacroSpec { macro_: name.replace('-', "_"), condition: condition.to_owned() })
    };
    (0..count)
        .map(|n| Namespace {
            name: format!("team-{n}"),
            rules: (0..RULES / count).map(|i| rule(n * RULES / count + i)).collect(),
            macros: vec![
                macro_("spawned", "proc.pid > 0 and evt.arg.res != 5"),
                macro_("user-known-write", "fd.name in (/etc/a, /etc/b) or proc.exepath startswith /opt/known"),
            ],
            lists: vec![FalcoList::new(
                "package-managers",
                FalcoListSpec {
                    list: "package_managers".to_owned(),
                    items: ["apt", "apt-get", "dpkg", "yum", "dnf", "rpm", "apk"].map(str::to_owned).to_vec(),
                },
            )],
        })
        .collect()
}

/// The shortest and the middle one of several rounds.
fn measure(mut round: impl FnMut()) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            round();
            start.elapsed()
        })
        .collect();
    times.sort();
    (times[0], times[ROUNDS / 2])
}

fn main() {
    let catalog = Catalog::default();
    println!("| what | rules | refused | best | median | median per rule |");
    println!("|---|---|---|---|---|---|");
    for count in [1, 10, 100, 1000] {
        let namespaces = namespaces(count);
        let names = Names::default();
        let mut refused = 0;
        let (best, median) = measure(|| {
            refused = 0;
            for namespace in &namespaces {
                let rendered = render(&Input {
                    namespace: &namespace.name,
                    rules: &namespace.rules.iter().collect::<Vec<_>>(),
                    macros: &namespace.macros.iter().collect::<Vec<_>>(),
                    lists: &namespace.lists.iter().collect::<Vec<_>>(),
                    settled: None,
                    names: &names,
                    policy: &Policy::default(),
                    catalogs: &[&catalog],
                });
                refused += rendered.rules.values().filter(|verdict| verdict.rejected.is_some()).count();
                std::hint::black_box(rendered);
            }
        });
        let each = median / RULES as u32;
        println!(
            "| validate and render, {count} namespaces | {RULES} | {refused} | {best:.1?} | {median:.1?} | {each:.1?} |"
        );
    }
}
