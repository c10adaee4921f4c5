//! The cluster's certificates: one authority, one certificate for each component.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

/// Where the files are, and what signs further ones.
pub struct Pki {
    dir: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    /// Makes the authority (`ca.crt`) and the key for service account tokens (`sa.key`, `sa.pub`) in `dir`.
    pub fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test-cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        lifetime(&mut params);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        fs::write(dir.join("ca.crt"), authority.pem())?;
        let tokens = KeyPair::generate()?;
        fs::write(dir.join("sa.key"), tokens.serialize_pem())?;
        fs::write(dir.join("sa.pub"), tokens.public_key_pem())?;
        Ok(Self { dir: dir.to_path_buf(), authority })
    }

    /// The path of one of the files.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// Writes the API server's certificate (`server.crt`, `server.key`).
    pub fn serve(&self, addresses: &[Ipv4Addr]) -> Result<()> {
        let names =
            ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).to_vec();
        let mut params = CertificateParams::new(names)?;
        params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(IpAddr::V4(*address))));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        let (certificate, key) = self.sign(params)?;
        fs::write(self.path("server.crt"), certificate)?;
        fs::write(self.path("server.key"), key)?;
        Ok(())
    }

    /// Writes a kubeconfig for the user, and returns its path.
    pub fn kubeconfig(&self, server: &str, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        let (certificate, key) = self.sign(params)?;
        let name = user.rsplit(':').next().unwrap_or(user);
        let (cert_path, key_path) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        fs::write(&cert_path, certificate)?;
        fs::write(&key_path, key)?;
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test-cluster",
            "clusters": [{"name": "test-cluster", "cluster": {"server": server, "certificate-authority": self.path("ca.crt")}}],
            "users": [{"name": name, "user": {"client-certificate": cert_path, "client-key": key_path}}],
            "contexts": [{"name": "test-cluster", "context": {"cluster": "test-cluster", "user": name}}],
        });
        let path = self.path(&format!("{name}.kubeconfig"));
        fs::write(&path, serde_yaml::to_string(&config)?)?;
        Ok(path)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<(String, String)> {
        lifetime(&mut params);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.authority)?.pem(), key.serialize_pem()))
    }
}

fn lifetime(params: &mut CertificateParams) {
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_hours(1)).into();
    params.not_after = (now + Duration::from_hours(7 * 24)).into();
}
