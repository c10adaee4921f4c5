//! The documentation: every link leads somewhere, and every command in it is one that there is. What is written in two
//! files is the same in both.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use falco_operator::cli::Cli;
use regex::Regex;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every page of the repository, by its path from the root.
fn pages() -> BTreeMap<PathBuf, String> {
    test_cluster::tools::pages().unwrap()
}

/// The lines of a page with whether they stand in a fenced block, the fences left out.
fn lines(text: &str) -> Vec<(usize, &str, bool)> {
    let mut fenced = false;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else {
            found.push((index + 1, line, fenced));
        }
    }
    found
}

/// The anchors of a page's headings, as forges make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, line, fenced) in lines(text) {
        let Some(heading) = line.strip_prefix('#').filter(|_| !fenced) else { continue };
        let heading = heading.trim_start_matches('#').trim();
        let words = heading.to_lowercase().replace(' ', "-");
        let slug: String = words.chars().filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_').collect();
        let mut name = slug.clone();
        let mut again = 0;
        while !found.insert(name.clone()) {
            again += 1;
            name = format!("{slug}-{again}");
        }
    }
    found
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    assert!(pages.len() > 10, "{}", pages.len());
    let link = Regex::new(r"\[[^\]]*\]\(([^)\s]+)\)").unwrap();
    let code = Regex::new("`[^`]*`").unwrap();
    let (mut broken, mut followed) = (Vec::new(), 0);
    for (page, text) in &pages {
        for (number, line, fenced) in lines(text) {
            if fenced {
                continue;
            }
            for found in link.captures_iter(&code.replace_all(line, "")) {
                let target = &found[1];
                if target.starts_with("https://") || target.starts_with("http://") {
                    continue;
                }
                followed += 1;
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                let mut path = page.clone();
                if !file.is_empty() {
                    path = normal(&page.parent().unwrap_or(Path::new("")).join(file));
                }
                let here = format!("{}:{number}: {target}", page.display());
                if !root().join(&path).exists() {
                    broken.push(format!("{here}: there is no {}", path.display()));
                } else if !anchor.is_empty() {
                    let known = pages.get(&path).map(|text| anchors(text)).unwrap_or_default();
                    if !known.contains(anchor) {
                        broken.push(format!("{here}: {} has no such heading", path.display()));
                    }
                }
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(followed > 30, "{followed}");
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut found = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(found.pop()),
            std::path::Component::CurDir => {}
            part => found.push(part),
        }
    }
    found
}

/// The command lines of this program in a text: in fenced blocks, and between backticks.
fn command_lines(text: &str) -> Vec<(usize, String)> {
    let code = Regex::new("`([^`]+)`").unwrap();
    let program = Regex::new(r"(?:^|\$ |\| |&& |exec |run: )\s*(?:falco-operator|kubectl falco) (.*)$").unwrap();
    let mut found = Vec::new();
    let mut joined: Option<(usize, String)> = None;
    for (number, line, fenced) in lines(text) {
        let texts: Vec<(usize, String)> = if fenced {
            let (first, text) = joined
                .take()
                .map_or((number, line.to_owned()), |(first, before)| (first, format!("{before} {}", line.trim())));
            if let Some(before) = text.strip_suffix('\\') {
                joined = Some((first, before.trim_end().to_owned()));
                continue;
            }
            vec![(first, text)]
        } else {
            joined = None;
            code.captures_iter(line).map(|found| (number, found[1].to_owned())).collect()
        };
        for (number, text) in texts {
            // Not a comment, not what follows a pipe or a redirection.
            let text = text.split(" #").next().unwrap_or_default();
            if let Some(rest) = program.captures(text) {
                let rest = rest[1].split(['|', '>', ';', '&']).next().unwrap_or_default();
                found.push((number, rest.trim().to_owned()));
            }
        }
    }
    found
}

/// What is wrong with the words after the program's name; nothing where they are as its own definitions have them.
fn fault(words: &str) -> Option<String> {
    let mut root = Cli::command();
    root.build();
    let words: Vec<&str> = words.split_whitespace().collect();
    let first = words.first()?;
    // A version, or a name in a sentence: `falco-operator 0.1.0`.
    if !first.starts_with(|c: char| c.is_ascii_lowercase()) && !first.starts_with('-') {
        return None;
    }
    let (command, rest) = match root.find_subcommand(first) {
        Some(command) => (command.clone(), words.get(1..).unwrap_or_default()),
        // Without a command it is the plugin of kubectl that shows the status.
        None if first.starts_with('-') => (root.find_subcommand("status")?.clone(), words.as_slice()),
        None => return Some(format!("there is no command {first}")),
    };
    for word in rest.iter().take_while(|word| word.trim_start_matches('[') != "--") {
        let word = word.trim_start_matches('[').trim_end_matches([']', ',', '.', '…']);
        let flag = word.split('=').next().unwrap_or_default();
        let known = match (flag.strip_prefix("--"), flag.strip_prefix('-')) {
            (Some("help"), _) | (_, Some("h" | "")) | (None, None) => true,
            (Some(long), _) => command.get_arguments().any(|arg| arg.get_long() == Some(long)),
            (None, Some(short)) => short
                .chars()
                .next()
                .is_some_and(|short| command.get_arguments().any(|arg| arg.get_short() == Some(short))),
        };
        if !known {
            return Some(format!("{first} has no {flag}"));
        }
    }
    None
}

#[test]
fn every_command_of_the_program_is_one_that_it_has() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for (page, text) in pages() {
        if page.starts_with("CHANGELOG.md") {
            continue;
        }
        for (number, words) in command_lines(&text) {
            checked += 1;
            if let Some(fault) = fault(&words) {
                wrong.push(format!("{}:{number}: falco-operator {words}: {fault}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(checked > 20, "{checked}");
}

/// The threats name the tests that show how each is stopped.
#[test]
fn every_test_that_the_docs_name_is_there() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let mut sources = String::new();
    let mut folders = vec![root().join("src"), root().join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|it| it == "rs") {
                sources.push_str(&fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    let table = page.split("| threat |").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut missing = Vec::new();
    for row in table.lines().skip(2) {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test in: {row}");
        missing.extend(names.into_iter().filter(|name| !sources.contains(&format!("fn {name}("))));
    }
    assert!(missing.is_empty(), "{missing:?}");
    // Files of the repository that a page names are there, too.
    let path = Regex::new("`((?:tests|src|charts|examples|docs)/[A-Za-z0-9_./-]+)`").unwrap();
    let mut gone = Vec::new();
    for (page, text) in pages() {
        for found in path.captures_iter(&text) {
            if !root().join(&found[1]).exists() {
                gone.push(format!("{}: {}", page.display(), &found[1]));
            }
        }
    }
    assert!(gone.is_empty(), "{gone:?}");
}

#[test]
fn the_image_is_built_by_the_toolchain_that_is_pinned() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let (pinned, image) = (read("rust-toolchain.toml"), read("Dockerfile"));
    let version = |text: &str, before: &str| {
        let found = Regex::new(&format!(r"{before}([0-9.]+)")).unwrap().captures(text).unwrap();
        found[1].to_owned()
    };
    let channel = version(&pinned, "channel = \"");
    assert_eq!(channel.split('.').count(), 3, "{channel} goes on with its patches");
    assert_eq!(version(&image, "FROM .* rust:"), channel);
    assert_eq!(version(&image, "RUSTUP_TOOLCHAIN="), channel);
}

#[test]
fn what_is_wrong_would_be_found() {
    assert_eq!(fault("status -n team-a bash"), None);
    assert_eq!(fault("agent --state-dir /x -- /usr/bin/falco --anything"), None);
    assert_eq!(fault("-n team-a"), None);
    assert_eq!(fault("stauts"), Some("there is no command stauts".into()));
    assert_eq!(fault("status --namespce x"), Some("status has no --namespce".into()));
    assert_eq!(fault("pause -x"), Some("pause has no -x".into()));
    let page = "# A b, c!\n\n```sh\nfalco-operator status \\\n  --watch # comment --x\n# a comment\nhelm upgrade x charts/falco-operator --namespace falco-operator --y\na | falco-operator lint -\n```\n\nRun `kubectl falco -n x`.\n## A b c\n";
    let lines: Vec<String> = command_lines(page).into_iter().map(|(_, line)| line).collect();
    assert_eq!(lines, ["status --watch", "lint -", "-n x"]);
    assert_eq!(anchors(page), ["a-b-c".to_owned(), "a-b-c-1".to_owned()].into());
    assert_eq!(normal(Path::new("docs/../charts/./x.md")), Path::new("charts/x.md"));
}
