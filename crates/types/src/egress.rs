//! Egress rules in the form in which they are looked up. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use crate::{EgressProxy, EgressRules, Ipv4Net};

/// Longest name in DNS, in text.
const MAX_NAME: usize = 253;

/// Ranges of addresses that don't overlap, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    fn of(nets: &[Ipv4Net]) -> Self {
        let mut sorted: Vec<_> = nets.iter().map(|net| net.range()).collect();
        sorted.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(sorted.len());
        for (first, last) in sorted {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        let bits = address.to_bits();
        let after = self.0.partition_point(|(first, _)| *first <= bits);
        after
            .checked_sub(1)
            .and_then(|at| self.0.get(at))
            .is_some_and(|(_, last)| bits <= *last)
    }

    fn is_all(&self) -> bool {
        self.0 == [(0, u32::MAX)]
    }
}

/// Names and wildcards; a look-up costs one hash for each label of the name.
#[derive(Debug, Clone)]
struct Domains<T> {
    any: Option<T>,
    exact: HashMap<Box<str>, T>,
    below: HashMap<Box<str>, T>,
}

impl<T> Domains<T> {
    fn of(entries: impl IntoIterator<Item = (String, T)>) -> Self {
        let mut domains = Self {
            any: None,
            exact: HashMap::new(),
            below: HashMap::new(),
        };
        for (entry, value) in entries {
            let entry = entry.to_ascii_lowercase();
            if entry == "*" {
                domains.any = Some(value);
            } else if let Some(parent) = entry.strip_prefix("*.") {
                domains.below.insert(parent.into(), value);
            } else {
                domains.exact.insert(entry.into(), value);
            }
        }
        domains
    }

    /// Exact beats the longest wildcard, which beats `*`.
    fn get(&self, name: &str) -> Option<&T> {
        if let Some(value) = self.exact.get(name) {
            return Some(value);
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(value) = self.below.get(parent) {
                return Some(value);
            }
            rest = parent;
        }
        self.any.as_ref()
    }

    fn is_empty(&self) -> bool {
        self.any.is_none() && self.exact.is_empty() && self.below.is_empty()
    }
}

/// What becomes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Goes to an address that the name has, not to the one that the sandbox chose.
    AllowName,
    /// Goes where the sandbox wants it to.
    AllowAddress,
    /// Refused, by the rule of this text.
    Deny(String),
}

/// Which names a sandbox may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// All.
    All,
    /// Those of allowed domains.
    Allowed,
    /// None.
    None,
}

/// Egress rules, ready to decide.
#[derive(Debug, Clone)]
pub struct EgressPolicy {
    rules: EgressRules,
    domains: Domains<()>,
    allow: Ranges,
    deny: Ranges,
    headers: Domains<String>,
}

impl EgressPolicy {
    /// Prepares rules.
    #[must_use]
    pub fn new(rules: EgressRules) -> Self {
        Self {
            domains: Domains::of(rules.domains.iter().map(|domain| (domain.clone(), ()))),
            allow: Ranges::of(&rules.allow),
            deny: Ranges::of(&rules.deny),
            headers: Domains::of(rules.headers.keys().map(|key| (key.clone(), key.clone()))),
            rules,
        }
    }

    /// The rules it was made of.
    #[must_use]
    pub fn rules(&self) -> &EgressRules {
        &self.rules
    }

    /// First and last addresses of what is allowed, apart from each other and in order.
    #[must_use]
    pub fn allowed_ranges(&self) -> &[(u32, u32)] {
        &self.allow.0
    }

    /// The same of what is denied.
    #[must_use]
    pub fn denied_ranges(&self) -> &[(u32, u32)] {
        &self.deny.0
    }

    /// Decides on a connection. `host` is the normalised name that it shows, if any.
    #[must_use]
    pub fn decide(&self, address: Ipv4Addr, host: Option<&str>) -> Verdict {
        if host.is_some_and(|name| self.allows_name(name)) {
            return Verdict::AllowName;
        }
        if self.allow.contains(address) || !self.deny.contains(address) {
            return Verdict::AllowAddress;
        }
        Verdict::Deny(self.denied_by(address))
    }

    /// Whether a normalised name is one of the allowed domains.
    #[must_use]
    pub fn allows_name(&self, name: &str) -> bool {
        self.domains.get(name).is_some()
    }

    /// Whether every name is allowed as a domain.
    #[must_use]
    pub fn allows_any_name(&self) -> bool {
        self.domains.any.is_some()
    }

    /// The entry that denies an address, as text for people.
    #[must_use]
    pub fn denied_by(&self, address: Ipv4Addr) -> String {
        let entry = self.rules.deny.iter().find(|net| net.contains(address));
        entry.map_or_else(
            || "no rule allows it".to_owned(),
            |net| format!("denyOut {net}"),
        )
    }

    /// Which names may be asked for: who may reach nothing but some names has no use for
    /// others, and a query alone carries data out.
    #[must_use]
    pub fn names(&self) -> Names {
        match (self.deny.is_all(), self.domains.is_empty()) {
            (false, _) => Names::All,
            (true, false) => Names::Allowed,
            (true, true) => Names::None,
        }
    }

    /// Whether names decide on connections to the ports that show them.
    #[must_use]
    pub fn has_domains(&self) -> bool {
        !self.domains.is_empty()
    }

    /// Whether requests to some hosts get headers.
    #[must_use]
    pub fn has_headers(&self) -> bool {
        self.rules.has_headers()
    }

    /// The headers to set in requests to a normalised name; none if there are none to set.
    #[must_use]
    pub fn headers_for(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        let headers = self.rules.headers.get(self.headers.get(name)?);
        headers.filter(|headers| !headers.is_empty())
    }

    /// The proxy that allowed TCP goes through.
    #[must_use]
    pub fn proxy(&self) -> Option<&EgressProxy> {
        self.rules.proxy.as_ref()
    }
}

/// Lower case, without the root's dot; `None` for what is no host name. Addresses are none.
#[must_use]
pub fn normalize_name(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let is_numeric = last.bytes().all(|b| b.is_ascii_digit())
        || last
            .get(..2)
            .is_some_and(|start| start.eq_ignore_ascii_case("0x"));
    (text.len() <= MAX_NAME && text.split('.').all(is_label) && !is_numeric)
        .then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(domains: &[&str], allow: &[&str], deny: &[&str]) -> EgressPolicy {
        let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect();
        EgressPolicy::new(EgressRules {
            domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
            allow: nets(allow),
            deny: nets(deny),
            ..EgressRules::default()
        })
    }

    const HERE: Ipv4Addr = Ipv4Addr::new(1, 1, 1, 1);

    #[test]
    fn names_come_first_then_allowed_then_denied_networks() {
        let policy = policy(&["example.com", "*.x.org"], &["1.1.1.0/24"], &["0.0.0.0/0"]);
        let elsewhere = Ipv4Addr::new(9, 9, 9, 9);
        let denied = || Verdict::Deny("denyOut 0.0.0.0/0".to_owned());
        for (host, address, verdict) in [
            (Some("example.com"), elsewhere, Verdict::AllowName),
            (Some("www.example.com"), elsewhere, denied()),
            (Some("x.org"), elsewhere, denied()),
            (Some("a.x.org"), elsewhere, Verdict::AllowName),
            (Some("b.a.x.org"), elsewhere, Verdict::AllowName),
            (Some("axx.org"), elsewhere, denied()),
            (Some("evil.com"), HERE, Verdict::AllowAddress),
            (None, HERE, Verdict::AllowAddress),
            (None, elsewhere, denied()),
        ] {
            assert_eq!(policy.decide(address, host), verdict, "{host:?} {address}");
        }
    }

    #[test]
    fn a_star_allows_every_name_but_no_address() {
        let policy = policy(&["*"], &[], &["0.0.0.0/0"]);
        assert_eq!(policy.decide(HERE, Some("a.b")), Verdict::AllowName);
        assert!(matches!(policy.decide(HERE, None), Verdict::Deny(_)));
    }

    #[test]
    fn names_are_open_unless_everything_is_denied() {
        assert_eq!(policy(&[], &[], &["1.1.1.1"]).names(), Names::All);
        assert_eq!(
            policy(&[], &["1.1.1.1"], &["0.0.0.0/0"]).names(),
            Names::None
        );
        let halves = &["0.0.0.0/1", "128.0.0.0/1"];
        assert_eq!(policy(&[], &["1.1.1.1"], halves).names(), Names::None);
        assert_eq!(policy(&["a.b"], &[], halves).names(), Names::Allowed);
    }

    #[test]
    fn exact_headers_beat_the_longest_wildcard() {
        let value = |text: &str| std::iter::once(("x".to_owned(), text.to_owned())).collect();
        let rules = EgressRules {
            headers: [("a.b.c", "1"), ("*.b.c", "2"), ("*.c", "3")]
                .map(|(key, text)| (key.to_owned(), value(text)))
                .into(),
            ..EgressRules::default()
        };
        let policy = EgressPolicy::new(rules);
        let found = |name| policy.headers_for(name).map(|headers| headers["x"].clone());
        assert_eq!(found("a.b.c").as_deref(), Some("1"));
        assert_eq!(found("z.b.c").as_deref(), Some("2"));
        assert_eq!(found("b.c").as_deref(), Some("3"));
        assert_eq!(found("c"), None);
    }

    #[test]
    fn host_names_are_normalised_and_addresses_are_none() {
        assert_eq!(normalize_name("Ex-Ample.COM."), Some("ex-ample.com".into()));
        for bad in [
            "", ".", "a..b", "1.2.3.4", "0x7f.0x1", "a b", "::1", "é.fr", "a.0x7f",
        ] {
            assert_eq!(normalize_name(bad), None, "{bad}");
        }
        assert_eq!(
            normalize_name(&"a.".repeat(127)),
            Some("a.".repeat(126) + "a")
        );
        assert_eq!(normalize_name(&"a.".repeat(128)), None);
    }

    fn any_net() -> impl Strategy<Value = Ipv4Net> {
        (any::<u32>(), 0u8..=32)
            .prop_map(|(bits, prefix)| Ipv4Net::new(Ipv4Addr::from_bits(bits), prefix).unwrap())
    }

    proptest! {
        #[test]
        fn merged_ranges_hold_what_the_networks_hold(
            nets in proptest::collection::vec(any_net(), 0..12),
            bits in any::<u32>(),
        ) {
            let ranges = Ranges::of(&nets);
            let near = nets.iter().flat_map(|net| {
                let (first, last) = net.range();
                [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
            });
            for bits in near.chain([bits]) {
                let address = Ipv4Addr::from_bits(bits);
                let expected = nets.iter().any(|net| net.contains(address));
                prop_assert_eq!(ranges.contains(address), expected);
            }
        }

        #[test]
        fn a_name_matches_as_the_plain_definition_says(
            entries in proptest::collection::vec("(\\*\\.)?[ab](\\.[ab]){0,3}", 0..6),
            name in "[ab](\\.[ab]){0,4}",
        ) {
            let rules = EgressRules { domains: entries.clone(), ..EgressRules::default() };
            let expected = entries.iter().any(|entry| match entry.strip_prefix("*.") {
                Some(parent) => name.ends_with(&format!(".{parent}")),
                None => *entry == name,
            });
            prop_assert_eq!(EgressPolicy::new(rules).allows_name(&name), expected);
        }

        #[test]
        fn no_text_breaks_the_normaliser(text in ".{0,300}") {
            if let Some(name) = normalize_name(&text) {
                prop_assert_eq!(normalize_name(&name), Some(name));
            }
        }
    }
}
