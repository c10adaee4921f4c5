//! The agent's engine with a real Falco process: the stand-in.

mod alerts;
mod configuration;
mod cycle;
mod faults;
mod place;
