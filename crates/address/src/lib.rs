//! How clients reach the server by name: the certificates it shows, and a name server for
//! its domain where there is no other.
//!
//! Three sources of certificates: a private authority ([`Authority`]), files of the
//! operator ([`files`]), and an ACME service ([`acme`]). [`Certificates`] is what the TLS
//! listener asks; [`Zone`] answers DNS.

pub mod acme;
mod authority;
mod certificates;
mod challenges;
pub mod files;
mod zone;

pub use authority::{Authority, AuthorityError};
pub use certificates::Certificates;
pub use challenges::Challenges;
pub use zone::{Zone, serve_tcp, serve_udp};

/// A domain without the port that may follow it, in lower case.
pub fn host_of(domain: &str) -> String {
    let host = match domain.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => domain,
    };
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// Whether a name is the domain or below it. Both in lower case, without a final dot.
pub(crate) fn is_within(name: &str, domain: &str) -> bool {
    name == domain
        || name
            .strip_suffix(domain)
            .is_some_and(|front| front.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_final_dots_are_no_part_of_a_domain() {
        assert_eq!(host_of("Example.com:8443"), "example.com");
        assert_eq!(host_of("example.com."), "example.com");
        assert_eq!(host_of("localhost"), "localhost");
    }

    #[test]
    fn only_whole_labels_are_below_a_domain() {
        assert!(is_within("a.b.d.test", "d.test") && is_within("d.test", "d.test"));
        assert!(!is_within("bad.test", "d.test") && !is_within("test", "d.test"));
    }
}
