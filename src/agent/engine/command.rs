//! The command line of the Falco to supervise.

use std::path::{Path, PathBuf};

use super::RuleMatching;
use super::config::{Base, PageAt};
use super::process::Spec;

/// The command line as given, taken apart.
#[derive(Clone, Debug)]
pub struct Command {
    program: Option<PathBuf>,
    /// Its arguments but `-c`.
    arguments: Vec<String>,
    /// The values of its `-o` options.
    options: Vec<String>,
    replaces_rules: bool,
    config: PathBuf,
}

impl Command {
    /// Takes a command line apart. Falco is always started with `config`, whatever it says.
    pub fn new(words: &[String], config: &Path) -> Self {
        let mut words = words.iter();
        let program = words.next().map(PathBuf::from);
        let (mut arguments, mut options, mut replaces_rules) = (Vec::new(), Vec::new(), false);
        while let Some(word) = words.next() {
            if let Some(attached) = word.strip_prefix("-c").filter(|_| !word.starts_with("--")) {
                let given = if attached.is_empty() { words.next().map_or("", String::as_str) } else { attached };
                if Path::new(given) != config {
                    tracing::warn!(given, used = %config.display(), "Falco is started with the configuration of the sets");
                }
                continue;
            }
            replaces_rules |= word.starts_with("-r");
            arguments.push(word.clone());
            if word == "-o" || word == "--option" {
                if let Some(option) = words.next() {
                    options.push(option.clone());
                    arguments.push(option.clone());
                }
            } else if let Some(option) = word.strip_prefix("-o").or_else(|| word.strip_prefix("--option=")) {
                options.push(option.to_owned());
            }
        }
        Self { program, arguments, options, replaces_rules, config: config.to_path_buf() }
    }

    /// Whether there is a Falco to supervise.
    pub fn supervises(&self) -> bool {
        self.program.is_some()
    }

    /// The `-o` options that were given.
    pub fn options(&self) -> &[String] {
        &self.options
    }

    /// Whether it has `-r`, with which Falco ignores falco.yaml's rules files.
    pub fn replaces_rules(&self) -> bool {
        self.replaces_rules
    }

    /// The arguments of a check: those of the real start, but for the port.
    pub fn check_arguments(&self, base: &Base, matching: RuleMatching) -> Vec<String> {
        let mut arguments = self.arguments.clone();
        if self.supervises() {
            for option in base.options(matching) {
                arguments.extend(["-o".to_owned(), option]);
            }
        }
        arguments
    }

    /// How Falco is to be started; with the configuration of the sets, or another one.
    pub fn spec(&self, base: &Base, matching: RuleMatching, config: Option<&Path>) -> Spec {
        let config = config.unwrap_or(&self.config);
        // Behind what was given, so that the program may be one that starts Falco: `nice`, `env`, ….
        let mut arguments = self.check_arguments(base, matching);
        arguments.extend(["-c".to_owned(), config.display().to_string()]);
        let page = base.page(self.supervises());
        Spec {
            program: self.program.clone().unwrap_or_default(),
            arguments,
            page: if let PageAt::Base(address) = page { Some(address) } else { None },
            own_page: page == PageAt::Own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> Command {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        Command::new(&words, Path::new("/state/falco.yaml"))
    }

    #[test]
    fn the_configuration_is_always_that_of_the_sets() {
        for words in [
            vec!["/usr/bin/falco", "-A"],
            vec!["/usr/bin/falco", "-c", "/state/falco.yaml", "-A"],
            vec!["/usr/bin/falco", "-c/etc/falco/falco.yaml", "-A"],
        ] {
            let command = command(&words);
            assert!(command.supervises());
            assert_eq!(command.arguments, ["-A"]);
        }
        assert!(!command(&[]).supervises());
    }

    #[test]
    fn options_are_known_in_each_spelling() {
        let command = command(&["falco", "-o", "a=1", "-ob=2", "--option=c=3", "--option", "d=4"]);
        assert_eq!(command.options(), ["a=1", "b=2", "c=3", "d=4"]);
        assert_eq!(command.arguments, ["-o", "a=1", "-ob=2", "--option=c=3", "--option", "d=4"]);
        assert!(!command.replaces_rules());
    }

    #[test]
    fn replaced_rules_files_are_noticed() {
        assert!(command(&["falco", "-r", "x.yaml"]).replaces_rules());
    }
}
