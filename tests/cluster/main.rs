//! The product against the real control plane, installed by its chart, under the rights that the chart gives it.
//!
//! Each test is a cluster of its own, in which several scenarios run one after the other: a start takes seconds, and
//! they don't disturb each other. `SCENARIO=burst cargo test --test cluster rules` runs one of them.

mod catalogs;
mod chaos;
mod controllers;
mod developer;
mod documented;
mod examples;
mod lifecycle;
mod lost;
mod nodes;
mod rights;
mod rules;
mod sidecar;
mod support;
