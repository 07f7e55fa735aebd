//! Network settings of a sandbox.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What the node enforces on traffic leaving a sandbox. Host, other sandboxes and private
/// ranges are out of reach whatever it says; IPv6 leaves no sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPolicy {
    /// Whether anything leaves at all.
    pub internet: bool,
    /// What of it; everything if unset.
    #[serde(default, with = "shared", skip_serializing_if = "Option::is_none")]
    pub egress: Option<Arc<EgressRules>>,
}

/// An optional shared value, written as the value.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &Option<Arc<T>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_deref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Arc<T>>, D::Error> {
        Ok(Option::deserialize(deserializer)?.map(Arc::new))
    }
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self {
            internet: true,
            egress: None,
        }
    }
}

impl NetworkPolicy {
    /// Whether requests to some hosts get headers, for which their TLS is looked into.
    #[must_use]
    pub fn has_headers(&self) -> bool {
        self.internet
            && self
                .egress
                .as_ref()
                .is_some_and(|rules| rules.has_headers())
    }

    /// The policy that lets nothing out.
    #[must_use]
    pub fn closed() -> Self {
        Self {
            internet: false,
            egress: None,
        }
    }
}

/// Finer rules on what leaves a sandbox, in the order in which they decide: domains, allowed
/// networks, denied networks; what none of them names is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EgressRules {
    /// Names, `*.` and a name, or `*`; lower case.
    pub domains: Vec<String>,
    /// Networks that are allowed even if they are denied.
    pub allow: Vec<Ipv4Net>,
    /// Networks that are denied.
    pub deny: Vec<Ipv4Net>,
    /// Resolvers whose queries the node answers instead, where domains decide.
    pub dns_servers: Vec<Ipv4Addr>,
    /// Headers to set in requests to hosts, by domain or `*.` and a domain; lower case. Values
    /// name secrets and tokens by placeholders.
    pub headers: BTreeMap<String, BTreeMap<String, String>>,
    /// Audiences of the workload tokens that placeholders can name.
    pub tokens: BTreeMap<String, String>,
    /// Whose secrets are meant: opaque to whoever enforces the rules.
    pub owner: String,
    /// SOCKS5 proxy that all TCP is tunnelled through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<EgressProxy>,
}

impl EgressRules {
    /// Whether requests to some hosts get headers, for which their TLS is looked into.
    #[must_use]
    pub fn has_headers(&self) -> bool {
        self.headers.values().any(|headers| !headers.is_empty())
    }
}

/// A SOCKS5 proxy for what leaves a sandbox. Its password is sealed by whoever made the rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressProxy {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User name at the proxy.
    pub username: Option<String>,
    /// Password at the proxy, not readable here.
    pub sealed_password: Option<String>,
    /// TLS to the proxy.
    pub tls: Option<EgressProxyTls>,
}

/// TLS to a SOCKS5 proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressProxyTls {
    /// Name that its certificate must be for; its host if unset.
    pub server_name: Option<String>,
    /// Certificates in PEM that are trusted instead of the host's.
    pub ca_cert: Option<String>,
}

/// A range of IPv4 addresses, written `ADDRESS/PREFIX`. Bits beyond the prefix are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Ipv4Net {
    address: Ipv4Addr,
    prefix: u8,
}

/// Text that is no range of IPv4 addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no IPv4 network")]
pub struct NotANet(String);

impl Ipv4Net {
    /// The network that an address lies in; `None` when the prefix is longer than 32.
    #[must_use]
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let host_bits = 32u32.checked_sub(prefix.into())?;
        let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
        Some(Self {
            address: Ipv4Addr::from_bits(address.to_bits() & mask),
            prefix,
        })
    }

    /// First and last address.
    #[must_use]
    pub fn range(self) -> (u32, u32) {
        let first = self.address.to_bits();
        let hosts = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        (first, first | hosts)
    }

    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        let (first, last) = self.range();
        (first..=last).contains(&address.to_bits())
    }
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Ipv4Net {
    type Err = NotANet;

    fn from_str(text: &str) -> Result<Self, NotANet> {
        let parse = || {
            let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
            Self::new(address.parse().ok()?, prefix.parse().ok()?)
        };
        parse().ok_or_else(|| NotANet(text.to_owned()))
    }
}

impl From<Ipv4Net> for String {
    fn from(net: Ipv4Net) -> Self {
        net.to_string()
    }
}

impl TryFrom<String> for Ipv4Net {
    type Error = NotANet;

    fn try_from(text: String) -> Result<Self, NotANet> {
        text.parse()
    }
}

/// What a client asked for at create, as far as the node and the proxy act on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkConfig {
    /// What may leave the sandbox.
    pub egress: NetworkPolicy,
    /// Header value that non-agent ports require, when public traffic is off.
    pub traffic_access_token: Option<String>,
    /// `Host` shown to services inside; `${PORT}` stands for the requested port.
    pub mask_request_host: Option<String>,
    /// Ports whose service inside speaks HTTPS.
    pub https_ports: Vec<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_cut_to_their_prefix_and_written() {
        for (text, shown) in [
            ("1.2.3.4", "1.2.3.4/32"),
            ("1.2.3.4/24", "1.2.3.0/24"),
            ("9.9.9.9/0", "0.0.0.0/0"),
        ] {
            assert_eq!(text.parse::<Ipv4Net>().unwrap().to_string(), shown);
        }
        for bad in ["", "1.2.3.4/33", "1.2.3", "::1", "1.2.3.4/"] {
            assert!(bad.parse::<Ipv4Net>().is_err(), "{bad}");
        }
        let all: Ipv4Net = "0.0.0.0/0".parse().unwrap();
        assert_eq!(all.range(), (0, u32::MAX));
        assert!(all.contains(Ipv4Addr::BROADCAST));
    }
}
