//! What the webhook tells about itself.

use crate::telemetry::metrics::{LATENCIES, metrics};

/// The kinds that it is asked about, and everything else.
pub const KINDS: &[&str] = &["FalcoRule", "FalcoMacro", "FalcoList", "other"];
/// What it can answer: `passed` is what there was nothing to judge about, `failed` what it could not answer.
pub const VERDICTS: &[&str] = &["allowed", "warned", "denied", "passed", "failed"];

metrics! {
    /// What the webhook tells about itself.
    pub struct WebhookMetrics = "falco_operator_webhook_";
    /// Requests of API servers, by the kind of the object and by the answer.
    counter requests_total { kind in KINDS.iter().copied(), verdict in VERDICTS.iter().copied() }
    /// How long an answer took.
    histogram request_seconds {} LATENCIES
    /// When the certificate that is served runs out, in seconds since 1970; 0 while there is none.
    ratio certificate_expiry_timestamp_seconds {}
    /// When the newest authority runs out that signs what is served, in seconds since 1970; 0 where it is not this program's.
    ratio authority_expiry_timestamp_seconds {}
    /// Certificates that were made, or read anew from files.
    counter certificates_total {}
    /// Times at which the certificate, or what API servers trust, could not be kept as it should be.
    counter certificate_failures_total {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_as_prometheus_wants_it() {
        assert_eq!(crate::telemetry::metrics::tests::lint(&WebhookMetrics::table()), Vec::<String>::new());
    }
}
