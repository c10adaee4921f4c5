//! Signals at the wrong moment.

use crate::harness::{Place, rule, until};
use nix::sys::signal::Signal;
use std::fs;

#[test]
fn without_watching_sighup_is_swallowed() {
    let place = Place::watching_folder();
    place.write("rules/a.yaml", &rule("a"));
    let mut falco = place.start(&["-o", "watch_config_files=false"]);
    assert!(falco.watched().is_empty());
    falco.signal(Signal::SIGHUP);
    until("the signal to have been taken", || {
        let status = fs::read_to_string(format!("/proc/{}/status", falco.pid())).unwrap();
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap().trim();
        u64::from_str_radix(pending, 16).unwrap() == 0
    });
    falco.signal(Signal::SIGTERM);
    assert_eq!(falco.ended().code(), Some(0));
    assert_eq!(falco.loads(), 1);
}

#[test]
fn sighup_before_the_handler_exists_kills_it() {
    let place = Place::watching_folder();
    place.write("rules/a.yaml", &rule("a"));
    place.write("control/slow", "60000");
    let mut falco = place.spawn(&[]);
    until("the load", || falco.loads() == 1);
    falco.signal(Signal::SIGHUP);
    assert_eq!(falco.ended_by(), Some(Signal::SIGHUP as i32));
}

#[test]
fn a_second_sighup_during_the_real_load_kills_it() {
    let place = Place::watching_folder();
    place.write("rules/a.yaml", &rule("a"));
    let mut falco = place.start(&[]);
    place.write("control/teardown", "0");
    // It hangs in a load that is none of a check.
    place.write("control/hang", "");
    falco.signal(Signal::SIGHUP);
    until("the real load", || falco.loads() == 3);
    falco.signal(Signal::SIGHUP);
    assert_eq!(falco.ended_by(), Some(Signal::SIGHUP as i32));
}

#[test]
fn several_sighups_at_once_are_one_reload() {
    let place = Place::watching_folder();
    let falco = place.start(&[]);
    let before = falco.page();
    for _ in 0..20 {
        falco.signal(Signal::SIGHUP);
    }
    falco.reloaded_since(&before);
    assert_eq!(falco.restarts(), 1);
}
