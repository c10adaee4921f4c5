//! The agent's engine with a real Falco process: the stand-in.

mod alerts;
mod base;
mod configuration;
mod cycle;
mod disk;
mod faults;
mod killed;
mod place;
