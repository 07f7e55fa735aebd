//! Joins the broker of what leaves sandboxes with the keeper of secrets.

use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use warren_control::{Control, ProxyCheck, SecretsError};
use warren_egress::{Resolver, Vault, VaultError, is_trustable};
use warren_runtime::ns::NsRuntime;
use warren_service::Secret;
use warren_types::{EgressProxy, SandboxId, TeamId};

/// The vault of the broker, which serves before the use cases are there.
#[derive(Debug, Clone, Default)]
pub(crate) struct ControlVault(Arc<OnceLock<Arc<Control>>>);

/// Why nothing can be asked.
#[derive(Debug, thiserror::Error)]
enum NotNow {
    #[error("the server is still starting")]
    Starting,
    #[error("rules of nobody")]
    Owner,
}

fn unavailable(cause: impl std::error::Error + Send + Sync + 'static) -> VaultError {
    VaultError::Unavailable(Box::new(cause))
}

fn sorted(error: SecretsError) -> VaultError {
    match error {
        SecretsError::NotFound => VaultError::Missing,
        other => unavailable(other),
    }
}

impl ControlVault {
    /// From here on it answers.
    pub(crate) fn open(&self, control: &Arc<Control>) {
        self.0.get_or_init(|| Arc::clone(control));
    }

    fn ask(&self, owner: &str) -> Result<(&Control, TeamId), VaultError> {
        let control = self.0.get().ok_or_else(|| unavailable(NotNow::Starting))?;
        let team = owner.parse().map_err(|_| unavailable(NotNow::Owner))?;
        Ok((control, team))
    }
}

#[async_trait]
impl Vault for ControlVault {
    async fn secret(&self, owner: &str, name: &str) -> Result<Secret, VaultError> {
        let (control, team) = self.ask(owner)?;
        control.secret_reveal(team, name).await.map_err(sorted)
    }

    async fn token(
        &self,
        owner: &str,
        sandbox: &SandboxId,
        audience: &str,
    ) -> Result<Secret, VaultError> {
        let (control, team) = self.ask(owner)?;
        let token = control.identity_token(team, sandbox, audience);
        token.map_err(unavailable)
    }

    async fn proxy_password(&self, owner: &str, sealed: &str) -> Result<Secret, VaultError> {
        let (control, team) = self.ask(owner)?;
        control.proxy_password(team, sealed).await.map_err(sorted)
    }
}

/// Looks at egress proxies as the broker will.
#[derive(Debug)]
pub(crate) struct HostProxyCheck {
    pub(crate) resolver: Resolver,
    pub(crate) runtime: Arc<NsRuntime>,
}

#[async_trait]
impl ProxyCheck for HostProxyCheck {
    async fn check(&self, proxy: &EgressProxy) -> Result<(), &'static str> {
        let addresses = match proxy.host.parse::<Ipv4Addr>() {
            Ok(address) => vec![address],
            Err(_) => {
                let found = self.resolver.addresses(&proxy.host).await;
                found
                    .map_err(|_| "address does not resolve to an IPv4 address")?
                    .to_vec()
            }
        };
        if !addresses.iter().any(|ip| self.runtime.is_public(*ip)) {
            return Err("address resolves to a range that is not public");
        }
        let pem = proxy.tls.as_ref().and_then(|tls| tls.ca_cert.as_deref());
        match pem {
            Some(pem) if !is_trustable(pem) => Err("tls.caCert holds no certificate in PEM"),
            _ => Ok(()),
        }
    }
}
