//! Network settings: what clients may ask for, and the rules that the node enforces for it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use warren_service::{Chain, Secret};
use warren_types::egress::{EgressPolicy, Names};
use warren_types::{ENVD_PORT, EgressRules, Ipv4Net, NetworkConfig, NetworkPolicy, TeamId};

use crate::Control;

mod check;
pub use check::NetworkError;

/// Network settings as given. Kept with the sandbox and shown again, but for passwords.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkSettings {
    /// False requires a traffic token on the sandbox's ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_public_traffic: Option<bool>,
    /// Destinations allowed whatever else is denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_out: Option<Vec<String>>,
    /// Denied ranges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny_out: Option<Vec<String>>,
    /// SOCKS5 proxy for outgoing TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_proxy: Option<EgressProxy>,
    /// `Host` shown to services inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask_request_host: Option<String>,
    /// Headers to set, by domain: one map for each rule of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<BTreeMap<String, Vec<BTreeMap<String, String>>>>,
    /// DNS servers that stay reachable when domains are allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_servers: Option<Vec<String>>,
    /// Ports whose service inside speaks HTTPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub https_ports: Option<Vec<i64>>,
    /// Audiences of the workload tokens that rules can name. Not a setting of the network as
    /// clients see it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tokens: BTreeMap<String, String>,
}

/// New egress settings, which replace all earlier ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkUpdate {
    /// Destinations allowed whatever else is denied.
    pub allow_out: Option<Vec<String>>,
    /// Denied ranges.
    pub deny_out: Option<Vec<String>>,
    /// SOCKS5 proxy for outgoing TCP.
    pub egress_proxy: Option<EgressProxy>,
    /// Headers to set, by domain.
    pub rules: Option<BTreeMap<String, Vec<BTreeMap<String, String>>>>,
    /// DNS servers that stay reachable when domains are allowed.
    pub dns_servers: Option<Vec<String>>,
    /// Denies or allows all egress; unset leaves it.
    pub allow_internet: Option<bool>,
}

/// A SOCKS5 proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressProxy {
    /// `host:port`.
    pub address: String,
    /// User name at the proxy.
    pub username: Option<String>,
    /// Password at the proxy, as given; only sealed it is kept.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// The same as it is kept.
    pub sealed_password: Option<String>,
    /// TLS to the proxy.
    pub tls: Option<EgressProxyTls>,
}

/// TLS to a SOCKS5 proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressProxyTls {
    /// Whether it is used.
    pub enabled: bool,
    /// Name to verify.
    pub server_name: Option<String>,
    /// CA certificate in PEM.
    pub ca_cert: Option<String>,
}

/// Says of proxies whether they can be used from here.
#[async_trait]
pub trait ProxyCheck: Debug + Send + Sync {
    /// Looks at a proxy.
    ///
    /// # Errors
    /// Why it can't be used, for the client.
    async fn check(&self, proxy: &warren_types::EgressProxy) -> Result<(), &'static str>;
}

impl EgressProxy {
    /// The proxy as it is used; its address was checked.
    fn to_rule(&self) -> Option<warren_types::EgressProxy> {
        let (host, port) = self.address.rsplit_once(':')?;
        let tls = self.tls.as_ref().filter(|tls| tls.enabled);
        Some(warren_types::EgressProxy {
            host: host.to_ascii_lowercase(),
            port: port.parse().ok()?,
            username: self.username.clone().filter(|name| !name.is_empty()),
            sealed_password: self.sealed_password.clone(),
            tls: tls.map(|tls| warren_types::EgressProxyTls {
                server_name: tls.server_name.clone(),
                ca_cert: tls.ca_cert.clone(),
            }),
        })
    }
}

impl Control {
    /// Checks settings, makes them fit to be kept, and works out what node and proxy have
    /// to do.
    pub(crate) async fn network(
        &self,
        team: TeamId,
        settings: &mut NetworkSettings,
        allow_internet: Option<bool>,
    ) -> Result<NetworkConfig, NetworkError> {
        settings.check(allow_internet)?;
        if let Some(proxy) = &mut settings.egress_proxy {
            if let (Some(check), Some(rule)) = (&self.config.proxies, proxy.to_rule()) {
                let usable = check.check(&rule).await;
                usable.map_err(NetworkError::EgressProxy)?;
            }
            if let Some(password) = proxy.password.take() {
                let sealed = self.seal_proxy_password(team, &password).await;
                let sealed = sealed.map_err(|error| {
                    tracing::error!(error = %Chain(&error), "the password of a proxy");
                    NetworkError::EgressProxy("the password can't be kept by this server")
                })?;
                proxy.sealed_password = Some(sealed);
            }
        }
        Ok(settings.config(team, allow_internet))
    }
}

impl NetworkSettings {
    /// Whether the sandbox's ports require a traffic token.
    pub(crate) fn is_private(&self) -> bool {
        self.allow_public_traffic == Some(false)
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn check(&self, allow_internet: Option<bool>) -> Result<(), NetworkError> {
        check::egress(self, allow_internet == Some(false))?;
        check::https_ports(self.https_ports.as_deref().unwrap_or_default())?;
        if let Some(host) = &self.mask_request_host {
            check::mask_host(host)?;
        }
        Ok(())
    }

    /// What node and proxy have to do for settings that were checked.
    pub(crate) fn config(&self, team: TeamId, allow_internet: Option<bool>) -> NetworkConfig {
        let ports = self.https_ports.iter().flatten();
        NetworkConfig {
            egress: self.policy(team, allow_internet),
            traffic_access_token: None,
            mask_request_host: self.mask_request_host.clone(),
            https_ports: ports.filter_map(|port| u16::try_from(*port).ok()).collect(),
        }
    }

    /// What the node enforces. Entries of IPv6 change nothing: it leaves no sandbox.
    fn policy(&self, team: TeamId, allow_internet: Option<bool>) -> NetworkPolicy {
        let headers = self.rules.iter().flatten().map(|(domain, list)| {
            let headers = list.first().cloned().unwrap_or_default();
            (domain.to_ascii_lowercase(), headers)
        });
        let mut rules = EgressRules {
            headers: headers.collect(),
            tokens: self.tokens.clone(),
            owner: team.to_string(),
            proxy: self.egress_proxy.as_ref().and_then(EgressProxy::to_rule),
            ..EgressRules::default()
        };
        for entry in self.allow_out.iter().flatten() {
            match Cidr::parse(entry) {
                Some(cidr) => rules.allow.extend(cidr.ipv4()),
                None => rules.domains.push(entry.to_ascii_lowercase()),
            }
        }
        let denied = self.deny_out.iter().flatten();
        let denied = denied.filter_map(|entry| Cidr::parse(entry));
        rules.deny.extend(denied.filter_map(Cidr::ipv4));
        if allow_internet == Some(false) {
            rules.deny.extend(Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0));
        }
        if !rules.domains.is_empty() {
            rules.dns_servers = match &self.dns_servers {
                Some(servers) => servers.iter().filter_map(|s| s.parse().ok()).collect(),
                None => vec![DEFAULT_DNS_SERVER],
            };
        }
        to_policy(rules)
    }

    pub(crate) fn to_stored(&self) -> String {
        serde_json::to_string(self).expect("plain lists and strings are always JSON")
    }

    pub(crate) fn from_stored(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl NetworkUpdate {
    /// The settings after the update: ingress stays, egress is replaced.
    pub(crate) fn apply_to(self, current: NetworkSettings) -> NetworkSettings {
        NetworkSettings {
            allow_out: self.allow_out,
            deny_out: self.deny_out,
            egress_proxy: self.egress_proxy,
            rules: self.rules,
            dns_servers: self.dns_servers,
            ..current
        }
    }
}

/// An address, or a range of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Reads `ADDRESS/PREFIX` or a bare address; the unspecified address alone is none.
    fn parse(text: &str) -> Option<Self> {
        match text.split_once('/') {
            Some((address, prefix)) => {
                let address: IpAddr = address.parse().ok()?;
                let plain = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
                let prefix: u8 = prefix.parse().ok().filter(|_| plain)?;
                let longest = if address.is_ipv4() { 32 } else { 128 };
                (prefix <= longest).then_some(Self { address, prefix })
            }
            None => {
                let address: IpAddr = text.parse().ok()?;
                let prefix = if address.is_ipv4() { 32 } else { 128 };
                (!address.is_unspecified()).then_some(Self { address, prefix })
            }
        }
    }

    fn is_all_ipv4(self) -> bool {
        self.prefix == 0 && self.address.is_ipv4()
    }

    fn ipv4(self) -> Option<Ipv4Net> {
        match self.address {
            IpAddr::V4(address) => Ipv4Net::new(address, self.prefix),
            IpAddr::V6(_) => None,
        }
    }
}

/// Says all or nothing of rules that come to that.
fn to_policy(rules: EgressRules) -> NetworkPolicy {
    if rules.deny.is_empty() && !rules.has_headers() && rules.proxy.is_none() {
        return NetworkPolicy::default();
    }
    let has_exceptions = !rules.allow.is_empty() || !rules.domains.is_empty();
    if !has_exceptions && EgressPolicy::new(rules.clone()).names() == Names::None {
        return NetworkPolicy::closed();
    }
    NetworkPolicy {
        internet: true,
        egress: Some(Arc::new(rules)),
    }
}

/// The resolver that sandboxes may ask where domains are allowed, unless others are named.
const DEFAULT_DNS_SERVER: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);

const RESERVED_PORT: u16 = ENVD_PORT;

#[cfg(test)]
mod tests {
    use super::*;

    fn deny(entries: &[&str]) -> NetworkSettings {
        NetworkSettings {
            deny_out: Some(entries.iter().map(|&entry| entry.to_owned()).collect()),
            ..NetworkSettings::default()
        }
    }

    fn internet(settings: &NetworkSettings, allow: Option<bool>) -> bool {
        settings.check(allow).unwrap();
        settings.config(TeamId::random(), allow).egress.internet
    }

    #[test]
    fn the_internet_is_open_unless_denied() {
        let none = NetworkSettings::default();
        assert!(internet(&none, None));
        assert!(internet(&none, Some(true)));
        assert!(!internet(&none, Some(false)));
        assert!(!internet(&deny(&["0.0.0.0/0"]), None));
        assert!(!internet(&deny(&["0.0.0.0/0", "8.8.8.8"]), None));
    }

    fn rules(settings: &NetworkSettings, allow: Option<bool>) -> EgressRules {
        settings.check(allow).unwrap();
        let egress = settings.config(TeamId::random(), allow).egress;
        assert!(egress.internet);
        EgressRules::clone(&egress.egress.unwrap())
    }

    fn allow(entries: &[&str], denied: &[&str]) -> NetworkSettings {
        NetworkSettings {
            allow_out: Some(entries.iter().map(|&entry| entry.to_owned()).collect()),
            ..deny(denied)
        }
    }

    #[test]
    fn finer_rules_become_a_policy() {
        let nets = |list: &[&str]| -> Vec<Ipv4Net> {
            list.iter().map(|net| net.parse().unwrap()).collect()
        };
        let found = rules(&deny(&["1.1.1.1", "2001:db8::/32", "9.0.0.1/8"]), None);
        assert_eq!(found.deny, nets(&["1.1.1.1/32", "9.0.0.0/8"]));
        assert_eq!(found.dns_servers, Vec::<Ipv4Addr>::new());

        let mut settings = allow(&["1.1.1.1", "Example.COM", "*.x.org"], &["0.0.0.0/0"]);
        let found = rules(&settings, None);
        assert_eq!(found.allow, nets(&["1.1.1.1/32"]));
        assert_eq!(found.domains, ["example.com", "*.x.org"]);
        assert_eq!(found.dns_servers, [DEFAULT_DNS_SERVER]);
        settings.dns_servers = Some(Vec::new());
        assert_eq!(rules(&settings, None).dns_servers, Vec::<Ipv4Addr>::new());
    }

    #[test]
    fn no_internet_is_the_same_as_all_denied() {
        let found = rules(&allow(&["1.1.1.1", "a.b"], &[]), Some(false));
        assert_eq!(found.deny, ["0.0.0.0/0".parse().unwrap()]);
        assert_eq!(found.domains, ["a.b"]);
        assert!(!internet(&deny(&["0.0.0.0/1", "128.0.0.0/1"]), None));
        let only_allowed = allow(&["1.1.1.1"], &[]);
        assert_eq!(
            only_allowed.config(TeamId::random(), None).egress,
            NetworkPolicy::default()
        );
    }

    #[test]
    fn header_rules_and_proxies_become_a_policy_but_open_nothing() {
        let header = BTreeMap::from([("X".to_owned(), "${e2b.secrets.k}".to_owned())]);
        let with_rules = |base: NetworkSettings| NetworkSettings {
            rules: Some([("*.A.b".to_owned(), vec![header.clone()])].into()),
            tokens: [("t".to_owned(), "aud".to_owned())].into(),
            ..base
        };
        let found = rules(&with_rules(NetworkSettings::default()), None);
        assert_eq!(found.headers, [("*.a.b".to_owned(), header.clone())].into());
        assert_eq!(found.tokens["t"], "aud");
        assert!(!found.owner.is_empty());
        assert!(!internet(&with_rules(deny(&["0.0.0.0/0"])), None));

        let mut proxied = NetworkSettings {
            egress_proxy: Some(EgressProxy {
                address: "Proxy.test:1080".to_owned(),
                username: Some("me".to_owned()),
                password: Some(Secret::new("hunter2".to_owned())),
                sealed_password: Some("sealed".to_owned()),
                tls: None,
            }),
            ..NetworkSettings::default()
        };
        let found = rules(&proxied, None).proxy.unwrap();
        assert_eq!((found.host.as_str(), found.port), ("proxy.test", 1080));
        assert!(!proxied.to_stored().contains("hunter2"));
        assert!(!format!("{proxied:?}").contains("hunter2"));
        proxied.egress_proxy.as_mut().unwrap().password = None;
        let read = NetworkSettings::from_stored(&proxied.to_stored());
        assert_eq!(read, Some(proxied));
    }

    #[test]
    fn what_is_stored_reads_back() {
        let settings = NetworkSettings {
            allow_public_traffic: Some(false),
            https_ports: Some(vec![8443]),
            ..deny(&["0.0.0.0/0"])
        };
        assert_eq!(
            NetworkSettings::from_stored(&settings.to_stored()),
            Some(settings)
        );
    }
}
