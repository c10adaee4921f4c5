//! The node's side: sets, the commit by one rename, Falco supervised, proof, report.
