//! The stand-in as a process: it must behave as Falco 0.44.1 was recorded to.

mod alerts;
mod check;
mod faults;
mod harness;
mod reload;
mod signals;
mod start;
