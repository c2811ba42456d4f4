//! TLS for servers: a certificate that was given, or one made up for the occasion.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use data_encoding::{BASE64, HEXUPPER};
use rcgen::PublicKeyData;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

use super::error::Failure;

/// A certificate that was made up: nobody vouches for it, so clients need a way to know it.
pub struct Generated {
    /// What speaks TLS with it.
    pub acceptor: TlsAcceptor,
    /// The certificate's SHA-256, as browsers and openssl show it.
    pub fingerprint: String,
    /// The public key's, as `curl --pinnedpubkey` takes it.
    pub pin: String,
}

/// Speaks TLS with the certificate (chain) and the key in these PEM files.
///
/// # Errors
/// [`Failure::Certificate`] with the file and what is wrong with it.
pub fn load(certificate: &Path, key: &Path) -> Result<TlsAcceptor, Failure> {
    let failure = |path: &Path, reason: String| Failure::Certificate { path: path.to_owned(), reason };
    let read = |error: rustls::pki_types::pem::Error, path: &Path, what: &str| {
        let reason = match error {
            rustls::pki_types::pem::Error::NoItemsFound => format!("it has no {what} in PEM form"),
            rustls::pki_types::pem::Error::Io(error) => error.to_string(),
            error => error.to_string(),
        };
        failure(path, reason)
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| read(error, certificate, "certificate"))?;
    if chain.is_empty() {
        return Err(failure(certificate, "it has no certificate in PEM form".into()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| read(error, key, "private key"))?;
    acceptor(chain, private)
        .map_err(|error| failure(certificate, format!("{error} (key: {})", key.display())))
}

/// Makes a key and a certificate for `addresses` and localhost, signed by itself.
///
/// # Errors
/// [`Failure::Certificate`], when there is no randomness for a key.
pub fn generate(addresses: &[IpAddr]) -> Result<Generated, Failure> {
    let failure = |reason: String| Failure::Certificate { path: PathBuf::from("(generated)"), reason };
    let names: Vec<String> =
        addresses.iter().map(IpAddr::to_string).chain(std::iter::once("localhost".to_owned())).collect();
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| failure(error.to_string()))?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
        .map_err(|error| failure(error.to_owned()))?;
    let certificate = made.cert.der().clone();
    let digest = HEXUPPER.encode(&sha256(&certificate));
    let pairs: Vec<&str> =
        digest.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok()).collect();
    let pin = format!("sha256//{}", BASE64.encode(&sha256(&made.signing_key.subject_public_key_info())));
    let fingerprint = pairs.join(":");
    let acceptor = acceptor(vec![certificate], key).map_err(|error| failure(error.to_string()))?;
    Ok(Generated { acceptor, fingerprint, pin })
}

/// Over the hash that rustls has anyway.
fn sha256(bytes: &[u8]) -> Vec<u8> {
    let suite = ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    suite.tls13().map_or_else(Vec::new, |suite| suite.common.hash_provider.hash(bytes).as_ref().to_vec())
}

fn acceptor(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<TlsAcceptor, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_certificate_tells_how_to_know_it() {
        let made = generate(&[IpAddr::from([192, 0, 2, 7])]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(made.fingerprint.len(), 32 * 3 - 1);
        assert!(made.pin.starts_with("sha256//") && made.pin.len() == 8 + 44, "{}", made.pin);
        assert_eq!(HEXUPPER.encode(&sha256(b""))[..8], *"E3B0C442");
    }

    #[test]
    fn what_is_wrong_with_the_files_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let made = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).expect("made");
        let other = rcgen::KeyPair::generate().expect("made");
        std::fs::write(path("cert"), made.cert.pem()).expect("written");
        std::fs::write(path("key"), made.signing_key.serialize_pem()).expect("written");
        std::fs::write(path("other"), other.serialize_pem()).expect("written");
        std::fs::write(path("text"), "no PEM").expect("written");
        assert!(load(&path("cert"), &path("key")).is_ok());
        for (certificate, key, says) in [
            ("none", "key", "No such file"),
            ("cert", "none", "No such file"),
            ("text", "key", "no certificate"),
            ("cert", "text", "no private key"),
            ("key", "key", "no certificate"),
            ("cert", "other", "key"),
        ] {
            let error = load(&path(certificate), &path(key)).err().expect("must not work").to_string();
            assert!(error.contains(says), "{certificate} {key}: {error}");
        }
    }
}
