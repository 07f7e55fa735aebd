//! Validation of network settings, with the texts that clients know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use warren_types::placeholder::{self, Part};

use super::{Cidr, EgressProxy, NetworkSettings, RESERVED_PORT};

const MAX_HTTPS_PORTS: usize = 128;
const MAX_DNS_SERVERS: usize = 10;
const MAX_CREDENTIAL: usize = 255;
/// Certificates of a proxy's own authority.
const MAX_CA_CERT: usize = 256 * 1024;
const MAX_RULE_DOMAINS: usize = 10;
const MAX_DOMAIN: usize = 128;
const MAX_RULE_HEADERS: usize = 20;
const MAX_HEADER_NAME: usize = 64;
const MAX_HEADER_VALUE: usize = 2048;
/// Secrets that the rules of a sandbox name.
const MAX_SECRETS: usize = 32;
/// Headers that say how a message is framed or where it goes, which is not for rules.
const FRAMING: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];
/// Entries of one egress list.
const MAX_ENTRIES: usize = 1024;
const MAX_MASK_HOST: usize = 255;

/// Why network settings are wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// A denied entry is no range.
    #[error("invalid denied CIDR {0}")]
    Denied(String),
    /// An allowed entry is neither range nor domain.
    #[error("invalid allowed address {0}")]
    Allowed(String),
    /// Domains are allowed, but nothing is denied.
    #[error(
        "When specifying allowed domains in allow out, you must include 'ALL_TRAFFIC' in deny \
         out to block all other traffic."
    )]
    DomainNeedsDeny,
    /// A list is too long.
    #[error("validation error: {list} can have at most {MAX_ENTRIES} entries")]
    TooManyEntries {
        /// Which.
        list: &'static str,
    },
    /// Too many DNS servers.
    #[error("DNS servers can have at most {MAX_DNS_SERVERS} entries.")]
    TooManyDnsServers,
    /// A DNS server is no IPv4 address.
    #[error("DNS server must be an IPv4 address: {0}")]
    DnsServer(String),
    /// Too many ports.
    #[error("HTTPS ports can have at most {MAX_HTTPS_PORTS} entries.")]
    TooManyHttpsPorts,
    /// Not a port.
    #[error("HTTPS port must be between 1 and 65535: {0}")]
    HttpsPort(i64),
    /// Named twice.
    #[error("HTTPS port {0} is specified more than once.")]
    HttpsPortTwice(u16),
    /// The agent's own port.
    #[error("HTTPS backend routing is not supported for reserved port {RESERVED_PORT}")]
    HttpsPortReserved,
    /// A masked host that is no host.
    #[error("mask request host is not valid: {0}")]
    MaskHost(String),
    /// A masked host outside ASCII.
    #[error("mask request host '{0}' is not ASCII. Please use ASCII characters only.")]
    MaskHostAscii(String),
    /// A bad proxy.
    #[error("Invalid egress proxy config: {0}")]
    EgressProxy(&'static str),
    /// Two keys of rules differ in case only.
    #[error("Network rule domain keys must be unique ignoring case.")]
    RuleKeys,
    /// Too many domains in rules.
    #[error("Network rules can have at most {MAX_RULE_DOMAINS} domains.")]
    TooManyRules,
    /// A key of rules that is no domain.
    #[error("Network rule domain is not valid: {0}")]
    RuleDomain(String),
    /// More than one rule for a domain.
    #[error("Network rule domain {0} can have at most 1 rule.")]
    RuleCount(String),
    /// Headers that can't be set.
    #[error("Network transform headers of domain {0} are not valid.")]
    RuleHeaders(String),
    /// More secrets than a sandbox may name.
    #[error("Network transform headers can name at most {MAX_SECRETS} secrets.")]
    TooManySecrets,
    /// A placeholder that can't be read.
    #[error("Network transform header contains a malformed E2B placeholder.")]
    Placeholder,
}

/// Whether an entry stands for all of IPv4.
pub(super) fn is_all_traffic(entry: &str) -> bool {
    Cidr::parse(entry).is_some_and(Cidr::is_all_ipv4)
}

/// Checks what leaves the sandbox. `denies_all` says that everything is denied anyhow.
pub(super) fn egress(settings: &NetworkSettings, denies_all: bool) -> Result<(), NetworkError> {
    let denied = settings.deny_out.as_deref().unwrap_or_default();
    let allowed = settings.allow_out.as_deref().unwrap_or_default();
    for (list, entries) in [("denyOut", denied), ("allowOut", allowed)] {
        if entries.len() > MAX_ENTRIES {
            return Err(NetworkError::TooManyEntries { list });
        }
    }
    if let Some(bad) = denied.iter().find(|entry| Cidr::parse(entry).is_none()) {
        return Err(NetworkError::Denied(bad.clone()));
    }
    let mut has_domain = false;
    for entry in allowed {
        if Cidr::parse(entry).is_some() {
            continue;
        }
        if !is_allowed_domain(entry) {
            return Err(NetworkError::Allowed(entry.clone()));
        }
        has_domain = true;
    }
    if has_domain && !denies_all && !denied.iter().any(|entry| is_all_traffic(entry)) {
        return Err(NetworkError::DomainNeedsDeny);
    }
    dns_servers(settings.dns_servers.as_deref().unwrap_or_default())?;
    if let Some(rules) = &settings.rules {
        check_rules(rules)?;
    }
    settings.egress_proxy.as_ref().map_or(Ok(()), egress_proxy)
}

fn dns_servers(servers: &[String]) -> Result<(), NetworkError> {
    if servers.len() > MAX_DNS_SERVERS {
        return Err(NetworkError::TooManyDnsServers);
    }
    let bad = servers
        .iter()
        .find(|server| server.parse::<Ipv4Addr>().is_err());
    bad.map_or(Ok(()), |server| {
        Err(NetworkError::DnsServer(server.clone()))
    })
}

/// `*`, a domain, or `*.` and a domain. What looks like an address but is none is refused.
fn is_allowed_domain(entry: &str) -> bool {
    entry == "*" || is_domain(entry.strip_prefix("*.").unwrap_or(entry))
}

fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let last_is_number = text
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    text.len() <= 253 && text.split('.').all(label) && !last_is_number
}

/// Checks the ports whose service speaks HTTPS.
pub(super) fn https_ports(ports: &[i64]) -> Result<Vec<u16>, NetworkError> {
    if ports.len() > MAX_HTTPS_PORTS {
        return Err(NetworkError::TooManyHttpsPorts);
    }
    let mut seen = BTreeSet::new();
    let mut checked = Vec::with_capacity(ports.len());
    for &port in ports {
        let port = u16::try_from(port)
            .ok()
            .filter(|port| *port > 0)
            .ok_or(NetworkError::HttpsPort(port))?;
        if port == RESERVED_PORT {
            return Err(NetworkError::HttpsPortReserved);
        }
        if !seen.insert(port) {
            return Err(NetworkError::HttpsPortTwice(port));
        }
        checked.push(port);
    }
    Ok(checked)
}

/// Checks the host shown to services inside: a host, and a port that may be `${PORT}`.
pub(super) fn mask_host(text: &str) -> Result<(), NetworkError> {
    if !text.is_ascii() {
        return Err(NetworkError::MaskHostAscii(text.to_owned()));
    }
    let host = text.replace("${PORT}", "1");
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host.as_str(), None),
    };
    let is_host = is_domain(name) || name.parse::<Ipv4Addr>().is_ok();
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if text.len() <= MAX_MASK_HOST && is_host && is_port {
        Ok(())
    } else {
        Err(NetworkError::MaskHost(text.to_owned()))
    }
}

fn egress_proxy(proxy: &EgressProxy) -> Result<(), NetworkError> {
    let error = |why| Err(NetworkError::EgressProxy(why));
    let Some((host, port)) = proxy.address.rsplit_once(':') else {
        return error("address must be host:port");
    };
    if host.is_empty() || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return error("address must be host:port");
    }
    if proxy
        .username
        .as_ref()
        .is_some_and(|name| name.len() > MAX_CREDENTIAL)
    {
        return error("username must not be longer than 255 bytes");
    }
    let password = proxy.password.as_ref();
    if password.is_some_and(|password| password.expose().len() > MAX_CREDENTIAL) {
        return error("password must not be longer than 255 bytes");
    }
    if password.is_some() && proxy.username.as_ref().is_none_or(String::is_empty) {
        return error("password requires username");
    }
    if proxy
        .tls
        .as_ref()
        .is_some_and(|tls| !tls.enabled && (tls.server_name.is_some() || tls.ca_cert.is_some()))
    {
        return error("tls settings require tls.enabled");
    }
    let pem = proxy.tls.as_ref().and_then(|tls| tls.ca_cert.as_ref());
    if pem.is_some_and(|pem| pem.len() > MAX_CA_CERT) {
        return error("tls.caCert must not be larger than 256 KiB");
    }
    Ok(())
}

fn check_rules(
    rules: &BTreeMap<String, Vec<BTreeMap<String, String>>>,
) -> Result<(), NetworkError> {
    let lower: BTreeSet<_> = rules.keys().map(|domain| domain.to_lowercase()).collect();
    if lower.len() != rules.len() {
        return Err(NetworkError::RuleKeys);
    }
    if rules.len() > MAX_RULE_DOMAINS {
        return Err(NetworkError::TooManyRules);
    }
    let mut secrets = BTreeSet::new();
    for (domain, list) in rules {
        let name = domain.strip_prefix("*.").unwrap_or(domain);
        if domain.len() > MAX_DOMAIN || !is_domain(name) {
            return Err(NetworkError::RuleDomain(domain.clone()));
        }
        if list.len() > 1 {
            return Err(NetworkError::RuleCount(domain.clone()));
        }
        for headers in list {
            if headers.len() > MAX_RULE_HEADERS || !headers.iter().all(is_header) {
                return Err(NetworkError::RuleHeaders(domain.clone()));
            }
            for value in headers.values() {
                let parts = placeholder::parts(value).ok_or(NetworkError::Placeholder)?;
                secrets.extend(parts.into_iter().filter_map(|part| match part {
                    Part::Secret(name) => Some(name.to_ascii_lowercase()),
                    Part::Text(_) | Part::Token(_) => None,
                }));
            }
        }
    }
    if secrets.len() > MAX_SECRETS {
        return Err(NetworkError::TooManySecrets);
    }
    Ok(())
}

fn is_header((name, value): (&String, &String)) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty()
        && name.len() <= MAX_HEADER_NAME
        && name.bytes().all(token)
        && !FRAMING.iter().any(|own| name.eq_ignore_ascii_case(own))
        && value.len() <= MAX_HEADER_VALUE
        && !value.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use warren_service::Secret;

    use super::*;

    fn settings(allow: &[&str], deny: &[&str]) -> NetworkSettings {
        let list = |entries: &[&str]| Some(entries.iter().map(|&e| e.to_owned()).collect());
        NetworkSettings {
            allow_out: list(allow),
            deny_out: list(deny),
            ..NetworkSettings::default()
        }
    }

    fn message(allow: &[&str], deny: &[&str]) -> Option<String> {
        egress(&settings(allow, deny), false)
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn egress_entries_are_checked_with_the_documented_texts() {
        for bad in [
            "example.com",
            "0.0.0.0",
            "1.2.3.4/33",
            "",
            "1.2.3",
            "1.2.3.4/+1",
        ] {
            assert_eq!(
                message(&[], &[bad]),
                Some(format!("invalid denied CIDR {bad}"))
            );
        }
        for bad in ["0.0.0.0", "1.2.3.4/x", "a b", "*.", "999.1.1.1", "http://x"] {
            assert_eq!(
                message(&[bad], &["0.0.0.0/0"]),
                Some(format!("invalid allowed address {bad}"))
            );
        }
        assert!(
            message(&["example.com"], &[])
                .unwrap()
                .contains("'ALL_TRAFFIC'")
        );
        assert_eq!(
            message(&["example.com", "*.x.org", "*"], &["0.0.0.0/0"]),
            None
        );
        assert_eq!(
            message(&["8.8.8.8", "1.1.1.0/24"], &["9.9.9.9", "::/0"]),
            None
        );
    }

    #[test]
    fn https_ports_are_checked_with_the_documented_texts() {
        let text = |ports: &[i64]| https_ports(ports).unwrap_err().to_string();
        assert_eq!(https_ports(&[443, 8443]), Ok(vec![443, 8443]));
        assert_eq!(text(&[0]), "HTTPS port must be between 1 and 65535: 0");
        assert_eq!(
            text(&[70_000]),
            "HTTPS port must be between 1 and 65535: 70000"
        );
        assert_eq!(text(&[1, 1]), "HTTPS port 1 is specified more than once.");
        assert_eq!(
            text(&[49_983]),
            "HTTPS backend routing is not supported for reserved port 49983"
        );
        let many: Vec<i64> = (1..=129).collect();
        assert_eq!(text(&many), "HTTPS ports can have at most 128 entries.");
    }

    #[test]
    fn masked_hosts() {
        for good in [
            "localhost",
            "localhost:${PORT}",
            "a.b-c.d:80",
            "127.0.0.1:3000",
        ] {
            assert_eq!(mask_host(good), Ok(()), "{good}");
        }
        for bad in [
            "-https://abcd",
            "",
            "a b",
            "x:0",
            "x:y",
            "a/b",
            "host\r\nX: y",
        ] {
            let text = mask_host(bad).unwrap_err().to_string();
            assert_eq!(text, format!("mask request host is not valid: {bad}"));
        }
        assert!(
            mask_host("höst")
                .unwrap_err()
                .to_string()
                .contains("is not ASCII")
        );
    }

    #[test]
    fn header_rules_are_bounded_and_placeholders_whole() {
        let rule = |headers: &[(&str, &str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()));
            check_rules(&[("a.b".to_owned(), vec![headers.collect()])].into())
        };
        assert_eq!(rule(&[("X-Key", "Bearer ${e2b.secrets.KEY} é")]), Ok(()));
        assert_eq!(
            rule(&[("X", "${e2b.nope}")]),
            Err(NetworkError::Placeholder)
        );
        for bad in [
            ("Host", "x"),
            ("content-length", "1"),
            ("a b", "x"),
            ("X", "a\nb"),
        ] {
            let expected = NetworkError::RuleHeaders("a.b".to_owned());
            assert_eq!(rule(&[bad]), Err(expected), "{bad:?}");
        }
        let many: String = (0..33).map(|n| format!("${{e2b.secrets.k{n}}}")).collect();
        assert_eq!(rule(&[("X", &many)]), Err(NetworkError::TooManySecrets));
        let same = "${e2b.secrets.k}${e2b.secrets.K}".repeat(20);
        assert_eq!(rule(&[("X", &same)]), Ok(()));
    }

    #[test]
    fn a_proxy_needs_an_address_and_a_name_with_its_password() {
        let proxy = |address: &str, has_password: bool| EgressProxy {
            address: address.to_owned(),
            username: None,
            password: has_password.then(|| Secret::new("p".to_owned())),
            sealed_password: None,
            tls: None,
        };
        assert!(egress_proxy(&proxy("h:1080", false)).is_ok());
        assert!(egress_proxy(&proxy("h", false)).is_err());
        assert!(egress_proxy(&proxy("h:1080", true)).is_err());
    }
}
