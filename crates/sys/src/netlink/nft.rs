//! Elements of firewall sets.

use std::io;
use std::net::Ipv4Addr;

use super::Socket;
use super::message::{ACK, CREATE, Message};

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const SUBSYSTEM: u16 = 10;
const NEW_ELEMENT: u16 = (SUBSYSTEM << 8) | 12;
const DELETE_ELEMENT: u16 = (SUBSYSTEM << 8) | 14;

const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const DATA_VALUE: u16 = 1;

/// `NFPROTO_INET`: the table holds rules for IPv4 and IPv6.
const FAMILY: u8 = 1;

impl Socket {
    /// Adds or removes an address in a set of an `inet` table. Adding one that is there is
    /// no error.
    ///
    /// # Errors
    /// `NotFound` when table, set or (for removal) element does not exist.
    pub fn set_element(
        &mut self,
        (table, set): (&str, &str),
        address: Ipv4Addr,
        add: bool,
    ) -> io::Result<()> {
        let subsystem = [0, 0, 0, SUBSYSTEM.to_be_bytes()[1]];
        let (kind, flags) = if add {
            (NEW_ELEMENT, ACK | CREATE)
        } else {
            (DELETE_ELEMENT, ACK)
        };
        let message = Message::new(BATCH_BEGIN, 0)
            .raw(&subsystem)
            .and(kind, flags)
            .raw(&[FAMILY, 0, 0, 0])
            .text(LIST_TABLE, table)
            .text(LIST_SET, set)
            .nest(LIST_ELEMENTS)
            .nest(LIST_ELEMENT)
            .nest(ELEMENT_KEY)
            .attribute(DATA_VALUE, &address.octets())
            .end()
            .end()
            .end()
            .and(BATCH_END, 0)
            .raw(&subsystem);
        self.request(message)
    }
}
