//! TLS in both directions: we dial servers, and a target dials us.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use super::config::Tls;
use crate::error::{Error, Kind, Result};

/// How we dial.
pub fn client(tls: &Tls) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|cause| broken("preparing TLS", cause))?;
    let builder = match tls.insecure_skip_verify {
        true => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider))),
        false => builder.with_root_certificates(roots(tls)?),
    };
    let config = match identity(tls)? {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|cause| broken("using the certificate in cert_file with the key in key_file", cause))?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// How a target dials us: only if we have a certificate. With `ca_file` the target must show one that it signs.
pub fn server(tls: &Tls) -> Result<Option<Arc<ServerConfig>>> {
    let Some((chain, key)) = identity(tls)? else { return Ok(None) };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|cause| broken("preparing TLS", cause))?;
    let builder = match &tls.ca_file {
        Some(_) => {
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots(tls)?), provider)
                    .build()
                    .map_err(|cause| broken("using the certificates in ca_file", cause))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let config = builder
        .with_single_cert(chain, key)
        .map_err(|cause| broken("using the certificate in cert_file with the key in key_file", cause))?;
    Ok(Some(Arc::new(config)))
}

fn roots(tls: &Tls) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match &tls.ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|cause| unread(path, cause))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        let why = "there is no certificate to trust";
        return Err(broken("preparing TLS", why).hint("set tls.ca_file to the PEM file of your CA"));
    }
    Ok(roots)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(tls: &Tls) -> Result<Option<Identity>> {
    let (Some(chain), Some(key)) = (&tls.cert_file, &tls.key_file) else { return Ok(None) };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|cause| unread(key, cause))?;
    Ok(Some((certificates(chain)?, private)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match all.map_err(|cause| unread(path, cause))? {
        none if none.is_empty() => Err(unread(path, "there is no PEM certificate in it")),
        some => Ok(some),
    }
}

fn unread(path: &Path, why: impl std::fmt::Display) -> Error {
    broken(format!("reading {}", path.display()), why)
        .hint("it must be a PEM file that this process may read")
}

fn broken(doing: impl Into<String>, why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Config, doing, why)
}

/// `insecure_skip_verify`: believes any certificate, checks only that its holder signs.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
