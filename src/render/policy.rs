//! What an administrator allows.

/// What an administrator allows, and how tenants are kept apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {}
