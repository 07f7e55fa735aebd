//! Certificates from an ACME service (RFC 8555), kept valid.
//!
//! Names of sandboxes are below the domain, so the certificate has a wildcard, which
//! services give for DNS-01 challenges only: answered by our own name server where the
//! domain is delegated to it, or by a program of the operator. HTTP-01 and TLS-ALPN-01
//! (RFC 8737) serve setups that only need the domain's own names.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, KeyAuthorization,
    NewAccount, NewOrder, OrderStatus, RetryPolicy,
};
use jiff::Timestamp;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::sign::CertifiedKey;
use tokio::process::Command;
use tokio::time::timeout;
use tracing::{info, warn};
use warren_service::{Chain, file};
use x509_parser::pem::Pem;

use crate::certificates::of_own_key;
use crate::files::{Files, FilesError, certified};
use crate::{Certificates, Challenges, Zone};

/// Pauses after failed attempts, doubled each time.
const RETRY_FIRST: Duration = Duration::from_secs(60);
const RETRY_LAST: Duration = Duration::from_secs(6 * 3600);
/// How often a certificate's age is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// The operator's program gets this long to make a record visible.
const HOOK_LIMIT: Duration = Duration::from_secs(600);

/// Why there is no certificate from the service.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The service can't be reached, or refuses.
    #[error("ask the ACME service")]
    Service(#[from] instant_acme::Error),
    /// It offers other ways to prove a name than the one that is set up.
    #[error("the ACME service offers no {kind} challenge for {name}")]
    NoChallenge {
        /// The name.
        name: String,
        /// The kind of challenge.
        kind: &'static str,
    },
    /// It does not believe that a name is ours.
    #[error(
        "the ACME service could not validate {name}: {reason}\nhint: see that the challenge can be reached from outside"
    )]
    Invalid {
        /// The name.
        name: String,
        /// What the service says.
        reason: String,
    },
    /// The operator's program failed.
    #[error("{program} {action} failed: {reason}")]
    Hook {
        /// Which.
        program: PathBuf,
        /// `present` or `cleanup`.
        action: &'static str,
        /// How.
        reason: String,
    },
    /// A certificate can't be made.
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
    /// A file can't be read or written.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// What the service gave can't be used.
    #[error("use what the ACME service gave")]
    Unusable(#[from] FilesError),
}

/// How names are proven to be ours.
#[derive(Debug, Clone)]
pub enum Solver {
    /// DNS-01 in a zone that we serve.
    Zone(Zone),
    /// DNS-01 by a program, run as `PROGRAM present|cleanup NAME VALUE`. It returns once
    /// everybody sees the change.
    Hook(PathBuf),
    /// TLS-ALPN-01 on the port of the server, which must be 443 from outside. No wildcard.
    TlsAlpn,
    /// HTTP-01: whoever serves port 80 answers with these. No wildcard.
    Http(Challenges),
}

/// What is asked of whom.
#[derive(Debug, Clone)]
pub struct Acme {
    /// The service's directory.
    pub directory: String,
    /// Certificates in PEM that the service itself is trusted by, instead of the system's.
    pub root: Option<PathBuf>,
    /// An address for notices of the service.
    pub email: Option<String>,
    /// The domain.
    pub domain: String,
    /// The proof.
    pub solver: Solver,
    /// Where the account and the certificate are kept.
    pub dir: PathBuf,
}

impl Acme {
    /// Shows the certificate that is kept, gets one when there is none, and renews it when
    /// two thirds of its life are over. Failures are told in the log and tried again.
    /// Never returns.
    pub async fn keep(self, certificates: Certificates) {
        let mut pause = RETRY_FIRST;
        if let Ok(kept) = self.load() {
            certificates.set(kept);
        }
        loop {
            let due = fs::read(self.kept()).map_or(true, |pem| is_due(&pem, Timestamp::now()));
            if !due {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            match self.obtain(&certificates).await {
                Ok(certificate) => {
                    info!(domain = self.domain, "got a certificate");
                    certificates.set(certificate);
                    pause = RETRY_FIRST;
                }
                Err(error) => {
                    warn!(error = %Chain(&error), again_in = ?pause, "no certificate");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_LAST);
                }
            }
        }
    }

    /// The certificate kept from before.
    fn load(&self) -> Result<CertifiedKey, AcmeError> {
        let path = self.kept();
        let pem = fs::read(&path).map_err(|source| AcmeError::File {
            path: path.clone(),
            source,
        })?;
        let files = Files {
            certificate: path.clone(),
            key: path,
        };
        Ok(certified(&pem, &pem, &files)?)
    }

    /// Chain and key in one file, so that they always fit each other.
    fn kept(&self) -> PathBuf {
        self.dir.join("certificate.pem")
    }

    /// Names of a certificate.
    fn names(&self) -> Vec<String> {
        match self.solver {
            Solver::TlsAlpn | Solver::Http(_) => {
                vec![self.domain.clone(), format!("api.{}", self.domain)]
            }
            Solver::Zone(_) | Solver::Hook(_) => {
                vec![self.domain.clone(), format!("*.{}", self.domain)]
            }
        }
    }

    /// Gets a certificate and keeps it.
    ///
    /// # Errors
    /// The service can't be reached, refuses, or could not validate a name.
    pub async fn obtain(&self, certificates: &Certificates) -> Result<CertifiedKey, AcmeError> {
        fs::create_dir_all(&self.dir).map_err(|source| AcmeError::File {
            path: self.dir.clone(),
            source,
        })?;
        let account = self.account().await?;
        let names: Vec<_> = self.names().into_iter().map(Identifier::Dns).collect();
        let mut shown = Shown::new(self, certificates);
        let got = self.order(&account, &names, &mut shown).await;
        shown.take_back().await;
        let (chain, key) = got?;
        let path = self.kept();
        file::replace(&path, format!("{chain}\n{key}").as_bytes(), 0o600)
            .map_err(|source| AcmeError::File { path, source })?;
        self.load()
    }

    async fn account(&self) -> Result<Account, AcmeError> {
        let path = self.dir.join("account.json");
        let builder = || match &self.root {
            Some(root) => Account::builder_with_root(root),
            None => Account::builder(),
        };
        // An account that can't be read is replaced: it holds nothing but a key.
        let kept = fs::read(&path).ok();
        if let Some(kept) = kept.and_then(|text| serde_json::from_slice(&text).ok()) {
            return Ok(builder()?.from_credentials(kept).await?);
        }
        let contact = self.email.as_ref().map(|email| format!("mailto:{email}"));
        let contact: Vec<_> = contact.iter().map(String::as_str).collect();
        let wanted = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let (account, credentials) = builder()?
            .create(&wanted, self.directory.clone(), None)
            .await?;
        keep_account(&path, &credentials)?;
        Ok(account)
    }

    async fn order(
        &self,
        account: &Account,
        names: &[Identifier],
        shown: &mut Shown<'_>,
    ) -> Result<(String, String), AcmeError> {
        let (kind, label) = match self.solver {
            Solver::TlsAlpn => (ChallengeType::TlsAlpn01, "TLS-ALPN-01"),
            Solver::Http(_) => (ChallengeType::Http01, "HTTP-01"),
            Solver::Zone(_) | Solver::Hook(_) => (ChallengeType::Dns01, "DNS-01"),
        };
        let mut order = account.new_order(&NewOrder::new(names)).await?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let name = match authorization.identifier().identifier {
                Identifier::Dns(name) => name.clone(),
                _ => continue,
            };
            let mut challenge =
                authorization
                    .challenge(kind.clone())
                    .ok_or_else(|| AcmeError::NoChallenge {
                        name: name.clone(),
                        kind: label,
                    })?;
            let proof = challenge.key_authorization();
            shown.show(&name, &challenge.token, &proof).await?;
            challenge.set_ready().await?;
        }
        let status = order.poll_ready(&RetryPolicy::default()).await?;
        if status != OrderStatus::Ready {
            return Err(why(&mut order, &self.domain).await);
        }
        let key = order.finalize().await?;
        let chain = order.poll_certificate(&RetryPolicy::default()).await?;
        Ok((chain, key))
    }
}

/// What the service says about the names of an order that failed.
async fn why(order: &mut instant_acme::Order, domain: &str) -> AcmeError {
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        for challenge in &authorization.challenges {
            if let Some(problem) = &challenge.error {
                return AcmeError::Invalid {
                    name: authorization.identifier().to_string(),
                    reason: problem.to_string(),
                };
            }
        }
    }
    AcmeError::Invalid {
        name: domain.to_owned(),
        reason: "it gave no reason".to_owned(),
    }
}

fn keep_account(path: &Path, credentials: &AccountCredentials) -> Result<(), AcmeError> {
    let file = |source| AcmeError::File {
        path: path.to_owned(),
        source,
    };
    let text = serde_json::to_vec(credentials).map_err(|error| file(error.into()))?;
    file::replace(path, &text, 0o600).map_err(file)
}

/// Answers to challenges that are up.
struct Shown<'a> {
    acme: &'a Acme,
    certificates: &'a Certificates,
    /// Values by name, or by token for HTTP: the domain and its wildcard share one.
    values: BTreeMap<String, Vec<String>>,
}

impl<'a> Shown<'a> {
    fn new(acme: &'a Acme, certificates: &'a Certificates) -> Self {
        Self {
            acme,
            certificates,
            values: BTreeMap::new(),
        }
    }

    async fn show(
        &mut self,
        name: &str,
        token: &str,
        proof: &KeyAuthorization,
    ) -> Result<(), AcmeError> {
        let (name, value) = match self.acme.solver {
            Solver::TlsAlpn => (name.to_owned(), String::new()),
            Solver::Http(_) => (token.to_owned(), proof.as_str().to_owned()),
            _ => (format!("_acme-challenge.{name}"), proof.dns_value()),
        };
        let values = self.values.entry(name.clone()).or_default();
        values.push(value.clone());
        match &self.acme.solver {
            Solver::Zone(zone) => zone.set_texts(&name, values.clone()),
            Solver::Http(challenges) => challenges.set(&name, &value),
            Solver::Hook(program) => hook(program, "present", &name, &value).await?,
            Solver::TlsAlpn => {
                let certificate = challenge_certificate(&name, proof.digest().as_ref())?;
                self.certificates.set_challenge(&name, Some(certificate));
            }
        }
        Ok(())
    }

    async fn take_back(self) {
        for (name, values) in self.values {
            match &self.acme.solver {
                Solver::Zone(zone) => zone.set_texts(&name, Vec::new()),
                Solver::TlsAlpn => self.certificates.set_challenge(&name, None),
                Solver::Http(challenges) => challenges.remove(&name),
                Solver::Hook(program) => {
                    for value in values {
                        if let Err(error) = hook(program, "cleanup", &name, &value).await {
                            warn!(%error, "an old challenge stays");
                        }
                    }
                }
            }
        }
    }
}

async fn hook(
    program: &Path,
    action: &'static str,
    name: &str,
    value: &str,
) -> Result<(), AcmeError> {
    let failed = |reason: String| AcmeError::Hook {
        program: program.to_owned(),
        action,
        reason,
    };
    let mut command = Command::new(program);
    command.args([action, name, value]).kill_on_drop(true);
    match timeout(HOOK_LIMIT, command.output()).await {
        Err(_) => Err(failed(format!("not done within {HOOK_LIMIT:?}"))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(failed(format!("{}: {}", output.status, said.trim())))
        }
    }
}

/// The certificate that proves a name over TLS.
fn challenge_certificate(name: &str, digest: &[u8]) -> Result<CertifiedKey, AcmeError> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(of_own_key(vec![certificate.der().clone()], &key)?)
}

/// Whether two thirds of the life of the first certificate are over, or it can't be read.
fn is_due(pem: &[u8], now: Timestamp) -> bool {
    let Some(Ok(first)) = Pem::iter_from_buffer(pem).next() else {
        return true;
    };
    let Ok(certificate) = first.parse_x509() else {
        return true;
    };
    let validity = certificate.validity();
    let (from, to) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    now.as_second() >= from + (to - from) / 3 * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_due_after_two_thirds_of_their_life() {
        let mut params = CertificateParams::new(vec!["d.test".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 1);
        let pem = params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .pem();
        let at = |text: &str| is_due(pem.as_bytes(), text.parse().unwrap());
        assert!(!at("2026-02-28T00:00:00Z"));
        assert!(at("2026-03-03T00:00:00Z"));
        assert!(is_due(b"nothing", Timestamp::now()));
    }

    #[tokio::test]
    async fn a_program_that_fails_says_how() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("hook");
        std::fs::write(&program, "#!/bin/sh\necho \"no $1 of $2\" >&2\nexit 3\n").unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, executable).unwrap();
        let error = hook(&program, "present", "n.test", "v").await.unwrap_err();
        assert!(
            error.to_string().contains("no present of n.test"),
            "{error}"
        );
    }
}
