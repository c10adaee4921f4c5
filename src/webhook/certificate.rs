//! Making certificates, and serving the one that was put in last.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};

use super::keyring::{Authority, Lifetimes, Served, Stage};

/// Clocks of replicas and API servers differ by less than this.
const SKEW: Duration = Duration::from_secs(300);

/// What can go wrong with a certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It could not be made.
    #[error("a certificate can't be made: {0}")]
    Made(#[from] rcgen::Error),
    /// It is no PEM.
    #[error("{what} can't be read as PEM: {source}")]
    Pem {
        /// The certificate or the key.
        what: &'static str,
        /// What the parser says.
        source: rustls::pki_types::pem::Error,
    },
    /// It is no certificate.
    #[error("the certificate can't be read: {0}")]
    Der(String),
    /// Certificate and key do not belong together, or the key is of an odd kind.
    #[error("certificate and key can't be served: {0}")]
    Key(#[from] rustls::Error),
}

/// A certificate with its key, ready to be served.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Chain and key.
    pub key: Arc<CertifiedKey>,
    /// Until when it is good.
    pub not_after: Timestamp,
}

/// Makes an authority.
pub fn authority(now: Timestamp, lifetimes: Lifetimes) -> Result<Authority, CertificateError> {
    let key = KeyPair::generate()?;
    // Two authorities that are trusted at once are told apart by their names too.
    let digest = hex::encode(Sha256::digest(key.public_key_raw()));
    let name = format!("falco-operator webhook {}", digest.get(..16).unwrap_or(&digest));
    let not_after = now.checked_add(lifetimes.authority).unwrap_or(Timestamp::MAX);
    let mut params = authority_params(&name);
    params.not_before = SystemTime::from(now.checked_sub(SKEW).unwrap_or(now)).into();
    params.not_after = SystemTime::from(not_after).into();
    let certificate = params.self_signed(&key)?.pem();
    Ok(Authority { name, certificate, key: key.serialize_pem(), not_after, stage: Stage::Next, since: now })
}

/// What an authority's certificate says but for its dates; a certificate that it signs repeats some of it.
fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Makes a certificate for the names of a Service, signed by the authority.
pub fn issue(
    authority: &Authority,
    names: &[String],
    now: Timestamp,
    lifetimes: Lifetimes,
) -> Result<(Ready, Served), CertificateError> {
    let (certificate, key) = issue_pem(authority, names, now, lifetimes)?;
    let ready = ready(certificate.as_bytes(), key.as_bytes())?;
    let served = Served { authority: authority.name.clone(), since: now, not_after: ready.not_after };
    Ok((ready, served))
}

/// The same as PEM: the certificate and its key.
pub(super) fn issue_pem(
    authority: &Authority,
    names: &[String],
    now: Timestamp,
    lifetimes: Lifetimes,
) -> Result<(String, String), CertificateError> {
    let issuer = Issuer::new(authority_params(&authority.name), KeyPair::from_pem(&authority.key)?);
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "falco-operator webhook");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let not_after = now.checked_add(lifetimes.certificate).unwrap_or(Timestamp::MAX).min(authority.not_after);
    params.not_before = SystemTime::from(now.checked_sub(SKEW).unwrap_or(now)).into();
    params.not_after = SystemTime::from(not_after).into();
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok((certificate, key.serialize_pem()))
}

/// Reads a chain of certificates and a key, both as PEM.
pub fn ready(certificates: &[u8], key: &[u8]) -> Result<Ready, CertificateError> {
    let pem = |what| move |source| CertificateError::Pem { what, source };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(certificates).collect::<Result<_, _>>().map_err(pem("the certificate"))?;
    let first = chain.first().ok_or_else(|| CertificateError::Der("there is none in the file".to_owned()))?;
    let (_, read) = x509_parser::parse_x509_certificate(first).map_err(|err| CertificateError::Der(err.to_string()))?;
    let not_after = Timestamp::from_second(read.validity().not_after.timestamp()).unwrap_or(Timestamp::MAX);
    let key = PrivateKeyDer::from_pem_slice(key).map_err(pem("the key"))?;
    let key = CertifiedKey::from_der(chain, key, &ring::default_provider())?;
    Ok(Ready { key: Arc::new(key), not_after })
}

/// Serves the certificate that was put in last. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Serving(Arc<RwLock<Option<Arc<CertifiedKey>>>>);

impl Serving {
    /// From the next connection on this one is served.
    pub fn put(&self, ready: &Ready) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&ready.key));
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    const LIFETIMES: Lifetimes =
        Lifetimes { authority: Duration::from_secs(3600), certificate: Duration::from_secs(600) };

    fn verifies(ready: &Ready, bundle: &str, name: &'static str, after: Duration) -> Result<(), rustls::Error> {
        let mut roots = rustls::RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let name = ServerName::try_from(name).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + after);
        verifier.verify_server_cert(&ready.key.cert[0], &[], &name, &[], now).map(drop)
    }

    #[test]
    fn what_an_authority_signs_is_trusted_by_those_who_trust_it() {
        let now = Timestamp::now();
        let (first, second) = (authority(now, LIFETIMES).unwrap(), authority(now, LIFETIMES).unwrap());
        let names = ["webhook.falco.svc".to_owned()];
        let (served, about) = issue(&first, &names, now, LIFETIMES).unwrap();
        assert_eq!(about.authority, first.name);
        assert_eq!(served.not_after.as_second(), now.as_second() + 600);
        let both = format!("{}\n{}", second.certificate, first.certificate);
        let verifies = |bundle: &str, name, after| verifies(&served, bundle, name, Duration::from_secs(after));
        verifies(&first.certificate, "webhook.falco.svc", 0).unwrap();
        verifies(&both, "webhook.falco.svc", 500).unwrap();
        assert!(verifies(&second.certificate, "webhook.falco.svc", 0).is_err(), "signed by another");
        assert!(verifies(&both, "other.falco.svc", 0).is_err(), "another name");
        assert!(verifies(&both, "webhook.falco.svc", 700).is_err(), "run out");
    }

    #[test]
    fn files_that_don_t_belong_together_are_told_in_words() {
        let now = Timestamp::now();
        let (one, two) = (authority(now, LIFETIMES).unwrap(), authority(now, LIFETIMES).unwrap());
        assert!(ready(one.certificate.as_bytes(), one.key.as_bytes()).is_ok());
        let say = |certificate: &str, key: &str| ready(certificate.as_bytes(), key.as_bytes()).unwrap_err().to_string();
        assert!(say(&one.certificate, &two.key).contains("can't be served"));
        assert!(say("", &one.key).contains("there is none"));
        assert!(say(&one.certificate, "").contains("the key can't be read"));
    }
}
