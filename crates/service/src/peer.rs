//! Where a request comes from.

use std::net::{IpAddr, SocketAddr};

/// The other end of the connection that a request came over; listeners put it among the
/// request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

impl Peer {
    /// Its address; one of IPv4 as such, also where it came to a listener of IPv6.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.0.ip().to_canonical()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv4_is_told_as_such() {
        for (text, told) in [
            ("[::ffff:192.0.2.7]:1", "192.0.2.7"),
            ("192.0.2.7:1", "192.0.2.7"),
            ("[2001:db8::1]:1", "2001:db8::1"),
        ] {
            assert_eq!(Peer(text.parse().unwrap()).ip().to_string(), told);
        }
    }
}
