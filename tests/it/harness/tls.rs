//! Certificates for servers on loopback.

use std::path::{Path, PathBuf};

use tidekeeper::source::redis::config::Tls;

use super::free_port;
use super::redis::RedisServer;

/// A CA, and a certificate for 127.0.0.1 that it signed, as PEM files in `folder`.
pub fn certificates(folder: &Path) -> Tls {
    // Two names: a certificate named like its issuer passes for self-signed with OpenSSL.
    let name = |name: &str| {
        let mut names = rcgen::DistinguishedName::new();
        names.push(rcgen::DnType::CommonName, name);
        names
    };
    let ca_key = rcgen::KeyPair::generate().expect("a key");
    let mut ca = rcgen::CertificateParams::new(Vec::<String>::new()).expect("parameters");
    ca.distinguished_name = name("CA of a test");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).expect("a certificate").pem();
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    leaf.distinguished_name = name("server of a test");
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let leaf_pem = leaf.signed_by(&key, &issuer).expect("a certificate").pem();
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("it is written");
        Some(path)
    };
    Tls {
        ca_file: write("ca.pem", ca_pem),
        cert_file: write("cert.pem", leaf_pem),
        key_file: write("key.pem", key.serialize_pem()),
        ..Tls::default()
    }
}

/// A server with certificates in `folder`, which also speaks TLS, on the port that is returned.
pub async fn tls_server(folder: &Path, more: &[&str]) -> (RedisServer, Tls, u16) {
    let tls = certificates(folder);
    let text = |path: &Option<PathBuf>| path.as_ref().expect("a path").display().to_string();
    let (ca, cert, key) = (text(&tls.ca_file), text(&tls.cert_file), text(&tls.key_file));
    let port = free_port();
    let listen = port.to_string();
    let args =
        ["--tls-port", &listen, "--tls-ca-cert-file", &ca, "--tls-cert-file", &cert, "--tls-key-file", &key];
    (RedisServer::start(&[&args, more].concat()).await, tls, port)
}
