//! Metrics, logs, and the HTTP server for probes and scrapes.
