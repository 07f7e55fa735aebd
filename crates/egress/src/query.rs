//! Questions of sandboxes to the resolver, against their policies. Pure.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use std::net::Ipv4Addr;
use warren_types::egress::{EgressPolicy, Names, normalize_name};

/// Largest answer over UDP that is asked for.
const PAYLOAD: u16 = 1232;

/// What becomes of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on as it is.
    Relay,
    /// This one goes on instead: the question alone, without what else could carry data.
    Ask(Vec<u8>),
    /// It is answered here; with the name, if that was refused.
    Answer(Vec<u8>, Option<String>),
    /// It is none.
    Drop,
}

/// Decides on a query.
pub(crate) fn judge(policy: Option<&EgressPolicy>, bytes: &[u8]) -> Fate {
    let Some(policy) = policy.filter(|policy| policy.names() != Names::All || policy.has_headers())
    else {
        return Fate::Relay;
    };
    let Ok(message) = Message::from_vec(bytes) else {
        return Fate::Drop;
    };
    let meta = &message.metadata;
    let [query] = message.queries.as_slice() else {
        return Fate::Drop;
    };
    if meta.message_type != MessageType::Query || meta.op_code != OpCode::Query {
        return Fate::Drop;
    }
    let name = normalize_name(&query.name().to_ascii());
    let is_allowed = match policy.names() {
        Names::All => true,
        Names::Allowed => name.as_deref().is_some_and(|name| policy.allows_name(name)),
        Names::None => false,
    };
    if !is_allowed || query.query_class() != DNSClass::IN {
        let name = name.unwrap_or_else(|| "a name that is no host's".to_owned());
        return answer(&message, ResponseCode::Refused, Some(name));
    }
    match query.query_type() {
        // They hold keys to encrypt the name of a server with.
        RecordType::HTTPS | RecordType::SVCB => answer(&message, ResponseCode::NoError, None),
        RecordType::ANY | RecordType::AXFR | RecordType::IXFR => {
            answer(&message, ResponseCode::Refused, None)
        }
        _ => rebuilt(&message, query).map_or(Fate::Drop, Fate::Ask),
    }
}

fn answer(message: &Message, code: ResponseCode, refused: Option<String>) -> Fate {
    let mut answer = Message::response(message.metadata.id, OpCode::Query);
    answer.metadata.recursion_desired = message.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.response_code = code;
    answer.queries.clone_from(&message.queries);
    answer
        .to_vec()
        .map_or(Fate::Drop, |bytes| Fate::Answer(bytes, refused))
}

fn rebuilt(message: &Message, query: &Query) -> Option<Vec<u8>> {
    let mut clean = Message::new(message.metadata.id, MessageType::Query, OpCode::Query);
    clean.metadata.recursion_desired = true;
    clean.add_query(Query::query(query.name().clone(), query.query_type()));
    if let Some(edns) = &message.edns {
        let mut own = Edns::new();
        own.set_max_payload(edns.max_payload().clamp(512, PAYLOAD));
        clean.edns = Some(own);
    }
    clean.to_vec().ok()
}

/// A query for the addresses of a name, under a random number.
pub(crate) fn for_addresses(name: &str) -> Option<Vec<u8>> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, RecordType::A));
    message.to_vec().ok()
}

/// What a resolver answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Addresses {
    /// The name has these addresses for so many seconds; none if it does not exist.
    Found(Vec<Ipv4Addr>, u32),
    /// The answer is longer than a datagram.
    Truncated,
    /// The resolver could not tell.
    Failed,
}

/// Reads the answer to [`for_addresses`].
pub(crate) fn addresses(bytes: &[u8]) -> Addresses {
    let Ok(message) = Message::from_vec(bytes) else {
        return Addresses::Failed;
    };
    if message.metadata.truncation {
        return Addresses::Truncated;
    }
    match message.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        _ => return Addresses::Failed,
    }
    let found = message
        .answers
        .iter()
        .filter_map(|record| match record.data {
            RData::A(address) => Some(address.0),
            _ => None,
        });
    let ttl = message.answers.iter().map(|record| record.ttl).min();
    Addresses::Found(found.collect(), ttl.unwrap_or(0))
}

#[cfg(test)]
pub(crate) mod tests {
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::A;
    use proptest::prelude::*;
    use warren_types::EgressRules;

    use super::*;

    fn policy(domains: &[&str]) -> EgressPolicy {
        EgressPolicy::new(EgressRules {
            domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
            deny: vec!["0.0.0.0/0".parse().unwrap()],
            ..EgressRules::default()
        })
    }

    pub(crate) fn ask(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.id = 7;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    /// An answer to a query for addresses.
    pub(crate) fn tell(query: &[u8], found: &[Ipv4Addr]) -> Vec<u8> {
        let query = Message::from_vec(query).unwrap();
        let mut answer = Message::response(query.metadata.id, OpCode::Query);
        answer.queries.clone_from(&query.queries);
        for address in found {
            let name = query.queries[0].name().clone();
            answer.add_answer(Record::from_rdata(name, 60, RData::A(A(*address))));
        }
        answer.to_vec().unwrap()
    }

    fn code(fate: &Fate) -> Option<ResponseCode> {
        match fate {
            Fate::Answer(bytes, _) => {
                let message = Message::from_vec(bytes).unwrap();
                assert_eq!(message.metadata.id, 7);
                Some(message.metadata.response_code)
            }
            _ => None,
        }
    }

    #[test]
    fn only_names_of_the_policy_are_asked_for() {
        let policy = policy(&["a.b", "*.c.d"]);
        for (name, is_allowed) in [
            ("a.b.", true),
            ("A.B.", true),
            ("x.a.b.", false),
            ("evil.org.", false),
            ("x.c.d.", true),
            ("c.d.", false),
            (".", false),
        ] {
            let fate = judge(Some(&policy), &ask(name, RecordType::A));
            assert_eq!(matches!(fate, Fate::Ask(_)), is_allowed, "{name}");
            let refused = (!is_allowed).then_some(ResponseCode::Refused);
            assert_eq!(code(&fate), refused, "{name}");
        }
        let https = judge(Some(&policy), &ask("a.b.", RecordType::HTTPS));
        assert_eq!(code(&https), Some(ResponseCode::NoError));
        let any = judge(Some(&policy), &ask("a.b.", RecordType::ANY));
        assert_eq!(code(&any), Some(ResponseCode::Refused));
        assert_eq!(judge(None, b"rubbish"), Fate::Relay);
        assert_eq!(judge(Some(&policy), b"rubbish"), Fate::Drop);
    }

    #[test]
    fn nothing_is_asked_for_where_no_name_is_allowed() {
        let policy = policy(&[]);
        let fate = judge(Some(&policy), &ask("a.b.", RecordType::A));
        assert_eq!(code(&fate), Some(ResponseCode::Refused));
    }

    #[test]
    fn what_goes_on_holds_the_question_and_nothing_else() {
        let mut message = Message::from_vec(&ask("a.b.", RecordType::A)).unwrap();
        let name = Name::from_ascii("data.of.mine.").unwrap();
        let record = Record::from_rdata(name, 1, RData::A(A(Ipv4Addr::LOCALHOST)));
        message.add_additional(record);
        let fate = judge(Some(&policy(&["a.b"])), &message.to_vec().unwrap());
        assert_eq!(
            fate,
            Fate::Ask({
                let mut clean = Message::from_vec(&ask("a.b.", RecordType::A)).unwrap();
                clean.metadata.recursion_desired = true;
                clean.to_vec().unwrap()
            })
        );
    }

    #[test]
    fn addresses_are_read_from_answers() {
        let query = for_addresses("a.b").unwrap();
        let two = [Ipv4Addr::new(1, 2, 3, 4), Ipv4Addr::new(5, 6, 7, 8)];
        assert_eq!(
            addresses(&tell(&query, &two)),
            Addresses::Found(two.to_vec(), 60)
        );
        assert_eq!(addresses(&tell(&query, &[])), Addresses::Found(vec![], 0));
        assert_eq!(addresses(b"x"), Addresses::Failed);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            judge(Some(&policy(&["a.b"])), &bytes);
            addresses(&bytes);
        }
    }
}
