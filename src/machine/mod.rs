//! The state machine of a namespace: one pure decision function over facts. Pure.
