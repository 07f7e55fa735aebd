//! Which addresses events may be sent to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Longest URL.
const MAX_URL: usize = 2048;

/// Why events can't be sent to a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not an absolute URL.
    #[error("the URL is malformed")]
    Malformed,
    /// Longer than anybody needs.
    #[error("the URL is longer than {MAX_URL} characters")]
    Long,
    /// Neither `http` nor `https`.
    #[error("the URL must begin with http:// or https://")]
    Scheme,
    /// It holds a user name, password or fragment, none of which would be sent.
    #[error("the URL must hold no credentials and no fragment")]
    Parts,
    /// It names an address that is not public.
    #[error("the URL leads to a private address, which this server does not allow")]
    Private,
}

/// Reads a URL and checks what can be checked without asking anybody. Names are looked up
/// when an event is sent, each time.
///
/// # Errors
/// [`UrlError`]
pub fn check_url(text: &str, allow_private: bool) -> Result<Url, UrlError> {
    if text.len() > MAX_URL {
        return Err(UrlError::Long);
    }
    let url = Url::parse(text).map_err(|_| UrlError::Malformed)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(UrlError::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(UrlError::Parts);
    }
    let public = match url.host().ok_or(UrlError::Malformed)? {
        Host::Ipv4(ip) => is_public(ip.into()),
        Host::Ipv6(ip) => is_public(ip.into()),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            name != "localhost" && !name.ends_with(".localhost")
        }
    };
    if public || allow_private {
        Ok(url)
    } else {
        Err(UrlError::Private)
    }
}

/// Whether an address is one of the public Internet.
pub(crate) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => match embedded(ip) {
            Some(inner) => is_public_v4(inner),
            // Global unicast but for documentation and the old test network.
            None => {
                let [first, second, ..] = ip.segments();
                (0x2000..0x4000).contains(&first)
                    && !(first == 0x2001 && (second < 0x0200 || second == 0x0db8))
                    && first != 0x3ffe
                    && !(first == 0x3fff && second < 0x1000)
            }
        },
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_broadcast()
        || ip.is_documentation()
        || a == 0
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b)))
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, 6to4, NAT64.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = ip.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, _, _, _, _, high, low] => {
            Some(v4(high, low))
        }
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        let private = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
        ];
        for text in private {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "1.1.1.1",
            "100.63.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "64:ff9b::101:101",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn urls_are_checked() {
        let refused = |text: &str| check_url(text, false).unwrap_err();
        assert_eq!(refused("nothing"), UrlError::Malformed);
        assert_eq!(refused("ftp://example.com/"), UrlError::Scheme);
        assert_eq!(refused("https://u:p@example.com/"), UrlError::Parts);
        assert_eq!(refused("https://example.com/#x"), UrlError::Parts);
        assert_eq!(
            refused(&format!("https://e.com/{}", "x".repeat(2048))),
            UrlError::Long
        );
        // Every spelling of an address is the same address.
        for text in [
            "http://127.0.0.1:1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://localhost/",
            "http://x.localhost./",
        ] {
            assert_eq!(refused(text), UrlError::Private, "{text}");
            assert!(check_url(text, true).is_ok(), "{text}");
        }
        assert!(check_url("https://example.com:8443/a?b=c", false).is_ok());
    }
}
