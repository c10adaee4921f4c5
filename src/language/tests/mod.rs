//! The language as a whole: against the verdicts of a real Falco, as a table of findings, and as properties.

mod hazards;
mod mistakes;
mod properties;
mod verdicts;
