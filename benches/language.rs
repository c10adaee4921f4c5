//! What the language costs: `cargo bench --bench language`. Prints tables for docs/performance.md; asserts nothing about
//! time. `cargo bench --bench language -- profile` only renders, for half a minute, so that a profiler has something to
//! look at: rules of 100 namespaces, or of as many as the next argument says.

use std::hint::black_box;
use std::time::{Duration, Instant};

use falco_operator::api::{FalcoList, FalcoListSpec, FalcoMacro, FalcoMacroSpec, FalcoRule};
use falco_operator::language::{Catalog, Definitions, ListText, MacroText, RuleText, check_rule, parse};
use falco_operator::render::{Input, Names, Policy, render};

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RULES: usize = 10_000;
const ROUNDS: usize = 9;

/// How long a rule's condition is.
#[derive(Clone, Copy)]
enum Size {
    /// As most of Falco's own rules: about 200 bytes.
    Usual,
    /// About twice that.
    Long,
}

impl Size {
    const ALL: [Self; 2] = [Self::Usual, Self::Long];

    fn condition(self, number: usize) -> String {
        match self {
            Self::Usual => format!(
                "spawned and evt.type in (open, openat, openat2) and (fd.filename in (package_managers) \
                 or fd.name startswith /etc/app-{number}) and not proc.pname in (package_managers) \
                 and container.id != host and not user_known_write"
            ),
            Self::Long => format!(
                "spawned and (evt.type in (open, openat, openat2) or evt.type = creat) and evt.is_open_write = true \
                 and fd.typechar = 'f' and fd.num >= 0 and fd.name startswith /etc/app-{number} \
                 and not proc.name in (package_managers) and not proc.pname in (package_managers) \
                 and not (proc.name = sed and proc.args contains \"-i\" or proc.cmdline startswith \"confd --number {number}\") \
                 and container.id != host and not user_known_write"
            ),
        }
    }
}

fn rule(number: usize, size: Size) -> FalcoRule {
    let spec = serde_json::json!({
        "rule": format!("Write below etc {number}"),
        "desc": "An attempt to write to any file below /etc by a program that does not belong to the base system.",
        "condition": size.condition(number),
        "output": "File below /etc opened for writing (file=%fd.name pcmdline=%proc.pcmdline gparent=%proc.aname[2] \
                   evt_type=%evt.type user=%user.name user_uid=%user.uid process=%proc.name parent=%proc.pname \
                   proc_exepath=%proc.exepath command=%proc.cmdline terminal=%proc.tty)",
        "priority": "ERROR",
        "tags": ["filesystem", "mitre_persistence"],
    });
    let mut rule = FalcoRule::new(&format!("rule-{number}"), serde_json::from_value(spec).expect("the rule is one"));
    rule.metadata.generation = Some(1);
    rule
}

const PACKAGE_MANAGERS: [&str; 7] = ["apt", "apt-get", "dpkg", "yum", "dnf", "rpm", "apk"];
const MACROS: [(&str, &str); 2] = [
    ("spawned", "proc.pid > 0 and evt.arg.res != 5"),
    ("user_known_write", "fd.name in (/etc/a, /etc/b) or proc.exepath startswith /opt/known"),
];

struct Namespace {
    name: String,
    rules: Vec<FalcoRule>,
    macros: Vec<FalcoMacro>,
    lists: Vec<FalcoList>,
}

fn namespaces(count: usize, size: Size) -> Vec<Namespace> {
    let macro_ = |(name, condition): (&str, &str)| {
        let spec = FalcoMacroSpec { macro_: name.to_owned(), condition: condition.to_owned() };
        FalcoMacro::new(&name.replace('_', "-"), spec)
    };
    let items = PACKAGE_MANAGERS.map(str::to_owned).to_vec();
    let list = FalcoList::new("package-managers", FalcoListSpec { list: "package_managers".to_owned(), items });
    (0..count)
        .map(|n| Namespace {
            name: format!("team-{n}"),
            rules: (0..RULES / count).map(|i| rule(n * RULES / count + i, size)).collect(),
            macros: MACROS.map(macro_).to_vec(),
            lists: vec![list.clone()],
        })
        .collect()
}

/// Renders all namespaces; says how many rules were refused.
fn render_all(namespaces: &[Namespace], catalog: &Catalog) -> usize {
    let (names, policy) = (Names::default(), Policy::default());
    let mut refused = 0;
    for namespace in namespaces {
        let rendered = render(&Input {
            namespace: &namespace.name,
            rules: &namespace.rules.iter().collect::<Vec<_>>(),
            macros: &namespace.macros.iter().collect::<Vec<_>>(),
            lists: &namespace.lists.iter().collect::<Vec<_>>(),
            settled: None,
            names: &names,
            policy: &policy,
            catalogs: &[catalog],
        });
        refused += rendered.rules.values().filter(|verdict| verdict.rejected.is_some()).count();
        black_box(rendered);
    }
    refused
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

fn row(what: &str, count: usize, (best, median): (Duration, Duration)) {
    let each = median / count as u32;
    println!("| {what} | {count} | {best:.1?} | {median:.1?} | {each:.2?} |");
}

fn main() {
    let catalog = Catalog::default();
    let mut arguments = std::env::args().skip_while(|argument| argument != "profile");
    if arguments.next().is_some() {
        let count = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(100);
        let namespaces = namespaces(count, Size::Usual);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(30) {
            black_box(render_all(&namespaces, &catalog));
        }
        return;
    }

    for size in Size::ALL {
        table(size, &catalog);
    }
}

fn table(size: Size, catalog: &Catalog) {
    let rules: Vec<FalcoRule> = (0..RULES).map(|number| rule(number, size)).collect();
    let items = PACKAGE_MANAGERS.map(str::to_owned).to_vec();
    let lists = [ListText { name: "package_managers", items: &items }];
    let macros = MACROS.map(|(name, condition)| MacroText { name, condition });
    let (definitions, _) = Definitions::compile(&lists, &macros, catalog);
    let trees: Vec<_> = rules.iter().map(|rule| parse(&rule.spec.condition).tree.expect("the rule is one")).collect();
    let mean = |bytes: fn(&FalcoRule) -> usize| rules.iter().map(bytes).sum::<usize>() / RULES;
    let (condition, output) = (mean(|rule| rule.spec.condition.len()), mean(|rule| rule.spec.output.len()));
    println!("\nRules with {condition} bytes of condition and {output} of output:\n");
    println!("| what | rules | best | median | median of one |");
    println!("|---|---|---|---|---|");
    let read = measure(|| rules.iter().for_each(|rule| drop(black_box(parse(&rule.spec.condition)))));
    row("parse a condition", RULES, read);
    row("print a condition", RULES, measure(|| trees.iter().for_each(|tree| drop(black_box(tree.text())))));
    let checked = measure(|| {
        for rule in &rules {
            let spec = &rule.spec;
            let text = RuleText {
                name: &spec.rule,
                condition: &spec.condition,
                output: &spec.output,
                priority: &spec.priority.0,
                tags: &spec.tags,
                ..RuleText::default()
            };
            black_box(check_rule(&text, &definitions, catalog));
        }
    });
    row("parse, check and inline a rule", RULES, checked);
    for count in [1, 10, 100, 1000] {
        let namespaces = namespaces(count, size);
        assert_eq!(render_all(&namespaces, catalog), 0, "rules of the benchmark are refused");
        let what = format!("validate and render, {count} namespaces");
        row(
            &what,
            RULES,
            measure(|| {
                black_box(render_all(&namespaces, catalog));
            }),
        );
    }
}
