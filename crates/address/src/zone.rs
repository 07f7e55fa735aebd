//! A name server for one domain: every name in it is the server's own. Other names are
//! refused, so that it can't be used as a resolver by anybody.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, NS, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;
use warren_service::Tasks;

use crate::is_within;

/// Largest query that is looked at.
const LARGEST_QUERY: usize = 1024;
/// Seconds that answers may be kept.
const TTL: u32 = 60;
/// TCP conversations at a time, and the longest of them.
const CONVERSATIONS: usize = 32;
const CONVERSATION: Duration = Duration::from_secs(10);

/// What the name server knows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Zone(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    domain: String,
    addresses: Vec<IpAddr>,
    /// Texts by name, for DNS-01 challenges.
    texts: RwLock<HashMap<String, Vec<String>>>,
}

impl Zone {
    /// A zone whose every name has these addresses.
    pub fn new(domain: &str, addresses: Vec<IpAddr>) -> Self {
        Self(Arc::new(Inner {
            domain: domain.to_owned(),
            addresses,
            texts: RwLock::default(),
        }))
    }

    /// Sets the texts of a name; none takes them away.
    pub fn set_texts(&self, name: &str, texts: Vec<String>) {
        let mut all = self.0.texts.write().unwrap_or_else(PoisonError::into_inner);
        if texts.is_empty() {
            all.remove(name);
        } else {
            all.insert(name.to_owned(), texts);
        }
    }

    /// The answer to a query; none to what is no query.
    pub fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).ok()?;
        if query.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        answer.metadata.recursion_desired = query.metadata.recursion_desired;
        answer.add_queries(query.queries.iter().cloned());
        let refused = |code| {
            let mut answer = answer.clone();
            answer.metadata.response_code = code;
            answer.to_vec().ok()
        };
        if query.metadata.op_code != OpCode::Query {
            return refused(ResponseCode::NotImp);
        }
        let [asked] = query.queries.as_slice() else {
            return refused(ResponseCode::FormErr);
        };
        let name = asked
            .name()
            .to_ascii()
            .trim_end_matches('.')
            .to_ascii_lowercase();
        if !is_within(&name, &self.0.domain) {
            return refused(ResponseCode::Refused);
        }
        answer.metadata.authoritative = true;
        let records = self.records(&name, asked.query_type());
        let add = |data| Record::from_rdata(asked.name().clone(), TTL, data);
        answer.add_answers(records.into_iter().map(add));
        if answer.answers.is_empty() {
            let soa = self.soa()?;
            let apex = Name::from_ascii(&self.0.domain).ok()?;
            answer.add_authority(Record::from_rdata(apex, TTL, soa));
        }
        answer.to_vec().ok()
    }

    fn records(&self, name: &str, kind: RecordType) -> Vec<RData> {
        let addresses = self.0.addresses.iter();
        match kind {
            RecordType::A => addresses
                .filter_map(|ip| match ip {
                    IpAddr::V4(ip) => Some(RData::A(A(*ip))),
                    IpAddr::V6(_) => None,
                })
                .collect(),
            RecordType::AAAA => addresses
                .filter_map(|ip| match ip {
                    IpAddr::V4(_) => None,
                    IpAddr::V6(ip) => Some(RData::AAAA(AAAA(*ip))),
                })
                .collect(),
            RecordType::TXT => {
                let texts = self.0.texts.read().unwrap_or_else(PoisonError::into_inner);
                let texts = texts.get(name).cloned().unwrap_or_default();
                texts
                    .into_iter()
                    .map(|text| RData::TXT(TXT::new(vec![text])))
                    .collect()
            }
            RecordType::SOA if name == self.0.domain => self.soa().into_iter().collect(),
            RecordType::NS if name == self.0.domain => self
                .name_server()
                .map(|server| RData::NS(NS(server)))
                .into_iter()
                .collect(),
            _ => Vec::new(),
        }
    }

    fn name_server(&self) -> Option<Name> {
        Name::from_ascii(format!("ns.{}.", self.0.domain)).ok()
    }

    fn soa(&self) -> Option<RData> {
        let server = self.name_server()?;
        let mail = Name::from_ascii(format!("hostmaster.{}.", self.0.domain)).ok()?;
        Some(RData::SOA(SOA::new(
            server, mail, 1, 3600, 600, 86_400, TTL,
        )))
    }
}

/// Answers datagrams. Never returns.
pub async fn serve_udp(socket: UdpSocket, zone: Zone) {
    let mut buffer = [0; LARGEST_QUERY];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An earlier answer that found nobody.
            Err(error) => {
                debug!(%error, "receive a query");
                continue;
            }
        };
        if let Some(answer) = zone.answer(&buffer[..length]) {
            // An asker that is gone asks no more.
            socket.send_to(&answer, from).await.ok();
        }
    }
}

/// Answers conversations, each for a limited time. Never returns.
pub async fn serve_tcp(listener: TcpListener, zone: Zone, tasks: Tasks) {
    let places = Arc::new(Semaphore::new(CONVERSATIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let zone = zone.clone();
        tasks.spawn(async move {
            // One that takes too long, or breaks off, is only let go.
            timeout(CONVERSATION, converse(stream, zone)).await.ok();
            drop(place);
        });
    }
}

async fn converse(mut stream: TcpStream, zone: Zone) -> std::io::Result<()> {
    loop {
        let length = usize::from(stream.read_u16().await?);
        if length > LARGEST_QUERY {
            return Ok(());
        }
        let mut query = vec![0; length];
        stream.read_exact(&mut query).await?;
        let Some(answer) = zone.answer(&query) else {
            return Ok(());
        };
        let Ok(length) = u16::try_from(answer.len()) else {
            return Ok(());
        };
        stream.write_u16(length).await?;
        stream.write_all(&answer).await?;
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;
    use proptest::prelude::*;

    use super::*;

    fn zone() -> Zone {
        let addresses = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        Zone::new("d.test", addresses)
    }

    fn ask(zone: &Zone, name: &str, kind: RecordType) -> Message {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        Message::from_vec(&zone.answer(&query.to_vec().unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn every_name_of_the_domain_is_the_server() {
        let zone = zone();
        for name in ["d.test.", "api.d.test.", "3000-IABC.D.Test."] {
            let answer = ask(&zone, name, RecordType::A);
            assert_eq!(answer.answers.len(), 1, "{name}");
            assert!(answer.metadata.authoritative);
            assert_eq!(ask(&zone, name, RecordType::AAAA).answers.len(), 1);
        }
        let other = ask(&zone, "x.d.test.", RecordType::MX);
        assert_eq!(other.metadata.response_code, ResponseCode::NoError);
        assert!(other.answers.is_empty() && other.authorities.len() == 1);
    }

    #[test]
    fn other_names_are_refused() {
        for name in ["example.com.", "bad.test.", "test.", "."] {
            let answer = ask(&zone(), name, RecordType::A);
            assert_eq!(
                answer.metadata.response_code,
                ResponseCode::Refused,
                "{name}"
            );
            assert!(answer.answers.is_empty());
        }
    }

    #[test]
    fn texts_are_there_until_they_are_taken_away() {
        let zone = zone();
        let name = "_acme-challenge.d.test";
        zone.set_texts(name, vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(ask(&zone, name, RecordType::TXT).answers.len(), 2);
        zone.set_texts(name, Vec::new());
        assert!(ask(&zone, name, RecordType::TXT).answers.is_empty());
    }

    proptest! {
        #[test]
        fn hostile_queries_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            zone().answer(&bytes);
        }
    }
}
