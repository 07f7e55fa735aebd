//! Texts of the firewall rules: the static ones, and those of a slot's policy. Pure.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use warren_types::egress::{EgressPolicy, Names};

use super::super::slot::Slot;
use super::router::{SERVICE_ADDRESS, UPLINK};

/// Table and set (in the router) of addresses that may not leave.
pub(crate) const DENIED: (&str, &str) = ("warren", "denied");

/// Destinations that are never public.
pub(crate) const BLOCKED: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
];

/// Connections that one sandbox may have open beyond the router, so that it can't fill the
/// host's table of connections.
const CONNECTIONS: u32 = 4096;

/// Group that the router's rules tell of refused packets in.
pub(crate) const GROUP: u16 = 7;
/// Port on [`SERVICE_ADDRESS`] that connections are sent to which are not for the rules here
/// to decide, or which they refuse.
pub(crate) const BROKER_PORT: u16 = 3129;

/// Rules of the router. `denied` are addresses that may not leave from the start; `tell`
/// whether the kernel can tell of what it refuses.
pub(crate) fn router(allowed: &[String], denied: &[Ipv4Addr], tell: bool) -> String {
    let mut text = String::from(
        "table inet warren\ndelete table inet warren\ntable inet warren {\n\
         set denied { type ipv4_addr; ",
    );
    elements(&mut text, denied.iter().map(ToString::to_string));
    text.push_str("}\nset blocked { type ipv4_addr; flags interval; ");
    elements(&mut text, BLOCKED.iter().map(ToString::to_string));
    text.push_str("}\nset allowed { type ipv4_addr; flags interval; auto-merge; ");
    elements(&mut text, allowed.iter().cloned());
    text.push_str(
        "}\nset told { type ipv4_addr; flags dynamic; size 65536; }
map policies { type ipv4_addr : verdict; }
map redirects { type ipv4_addr : verdict; }
",
    );
    for why in Why::ALL {
        let prefix = why.prefix();
        let rule = if tell {
            format!(
                "add @told {{ ip saddr limit rate 5/second burst 20 packets }} \
                 log prefix \"{prefix}\" group {GROUP}"
            )
        } else {
            String::new()
        };
        // Formatting into a string can't fail.
        let _ok = writeln!(text, "chain tell_{prefix} {{\n    {rule}\n}}");
    }
    let _ok = write!(
        text,
        "set connections {{ type ipv4_addr; flags dynamic; size 65536; }}
chain anti_spoof {{
    type filter hook prerouting priority raw; policy accept;
    iifname \"s*\" fib saddr . iif oif missing drop
    iifname \"s*\" meta nfproto ipv6 drop
}}
chain intercept {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname != \"s*\" return
    ip daddr != @allowed ip daddr @blocked return
    ip saddr vmap @redirects
}}
chain input {{
    type filter hook input priority filter; policy drop;
    iifname \"lo\" accept
    iifname \"{UPLINK}\" ct state established,related accept
    iifname \"s*\" ip daddr {SERVICE_ADDRESS} tcp dport 80 accept
    iifname \"s*\" ip saddr @denied jump tell_n
    iifname \"s*\" ip saddr @denied reject with icmp type admin-prohibited
    iifname \"s*\" ip daddr {SERVICE_ADDRESS} udp dport 53 accept
    iifname \"s*\" ip daddr {SERVICE_ADDRESS} tcp dport 53 accept
    iifname \"s*\" ip daddr {SERVICE_ADDRESS} tcp dport {BROKER_PORT} ct status dnat accept
    iifname \"s*\" ct state new jump tell_h
}}
chain output {{
    type filter hook output priority filter; policy accept;
    oifname \"{UPLINK}\" ip daddr != @allowed ip daddr @blocked reject with icmp type admin-prohibited
}}
chain forward {{
    type filter hook forward priority filter; policy drop;
    ip saddr @denied jump tell_n
    ip saddr @denied reject with icmp type admin-prohibited
    ip daddr @denied drop
    ct state invalid drop
    iifname \"{UPLINK}\" ct state established,related accept
    iifname \"s*\" oifname \"{UPLINK}\" jump egress
    iifname \"s*\" ct state new jump tell_h
}}
chain egress {{
    ip daddr != @allowed ip daddr @blocked jump tell_h
    ip daddr != @allowed ip daddr @blocked reject with icmp type admin-prohibited
    ct state new ip saddr vmap @policies
    ct state new add @connections {{ ip saddr ct count over {CONNECTIONS} }} jump tell_c
    ct state new add @connections {{ ip saddr ct count over {CONNECTIONS} }} drop
    accept
}}
chain outbound {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname \"{UPLINK}\" masquerade
}}
}}
"
    );
    text
}

/// Which rule refused a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The destination is not public.
    Blocked,
    /// The sandbox may not leave.
    NoInternet,
    /// The destination is denied.
    Denied,
    /// QUIC, where names or headers matter: it shows neither.
    Quic,
    /// Too many connections.
    Connections,
}

impl Why {
    const ALL: [Self; 5] = [
        Self::Blocked,
        Self::NoInternet,
        Self::Denied,
        Self::Quic,
        Self::Connections,
    ];

    fn prefix(self) -> &'static str {
        match self {
            Self::Blocked => "h",
            Self::NoInternet => "n",
            Self::Denied => "d",
            Self::Quic => "q",
            Self::Connections => "c",
        }
    }

    pub(super) fn of_prefix(prefix: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|why| why.prefix() == prefix)
    }
}

/// Names of what the router has for the policy of a slot: sets and chains.
struct Own {
    allow: String,
    deny: String,
    packets: String,
    redirects: String,
}

impl Own {
    fn of(slot: Slot) -> Self {
        let number = slot.number();
        Self {
            allow: format!("a{number}"),
            deny: format!("d{number}"),
            packets: format!("f{number}"),
            redirects: format!("t{number}"),
        }
    }
}

/// Puts the policy of a slot in force, replacing an earlier one at once.
pub(crate) fn install(slot: Slot, policy: &EgressPolicy) -> String {
    let own = Own::of(slot);
    let (allowed, denied) = (policy.allowed_ranges(), policy.denied_ranges());
    let mut text = String::new();
    for (set, ranges) in [(&own.allow, allowed), (&own.deny, denied)] {
        let _ok = write!(
            text,
            "add set inet warren {set} {{ type ipv4_addr; flags interval; }}\n\
             flush set inet warren {set}\n"
        );
        if !ranges.is_empty() {
            let ranges: Vec<_> = ranges.iter().map(range).collect();
            let _ok = writeln!(
                text,
                "add element inet warren {set} {{ {} }}",
                ranges.join(", ")
            );
        }
    }
    let mut rules = packet_rules(&own, policy);
    rules.extend(redirect_rules(&own, policy));
    for chain in [&own.packets, &own.redirects] {
        let _ok = write!(
            text,
            "add chain inet warren {chain}\nflush chain inet warren {chain}\n"
        );
    }
    for (chain, rule) in rules {
        let _ok = writeln!(text, "add rule inet warren {chain} {rule}");
    }
    let address = slot.address();
    let _ok = write!(
        text,
        "add element inet warren policies {{ {address} : jump {} }}\n\
         add element inet warren redirects {{ {address} : jump {} }}\n",
        own.packets, own.redirects
    );
    text
}

fn range((first, last): &(u32, u32)) -> String {
    let (first, last) = (Ipv4Addr::from_bits(*first), Ipv4Addr::from_bits(*last));
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

/// What a rule says to match a set, which may be empty or hold everything.
fn matching(set: &str, ranges: &[(u32, u32)]) -> Option<String> {
    match ranges {
        [] => None,
        [(0, u32::MAX)] => Some(String::new()),
        _ => Some(format!("ip daddr @{set} ")),
    }
}

/// Rules for first packets that are on their way out.
fn packet_rules<'a>(own: &'a Own, policy: &EgressPolicy) -> Vec<(&'a str, String)> {
    const REJECT: &str = "reject with icmp type admin-prohibited";
    let mut rules = Vec::new();
    if policy.has_domains() || policy.has_headers() {
        rules.push("udp dport 443 jump tell_q".to_owned());
        rules.push(format!("udp dport 443 {REJECT}"));
    }
    if let Some(allowed) = matching(&own.allow, policy.allowed_ranges()) {
        rules.push(format!("{allowed}return"));
    }
    if let Some(denied) = matching(&own.deny, policy.denied_ranges()) {
        rules.push(format!("{denied}jump tell_d"));
        rules.push(format!("{denied}{REJECT}"));
    }
    rules
        .into_iter()
        .map(|rule| (own.packets.as_str(), rule))
        .collect()
}

/// Rules for what is taken to services of ours.
fn redirect_rules<'a>(own: &'a Own, policy: &EgressPolicy) -> Vec<(&'a str, String)> {
    let broker = format!("dnat ip to {SERVICE_ADDRESS}:{BROKER_PORT}");
    let mut rules = Vec::new();
    let servers = &policy.rules().dns_servers;
    if policy.names() == Names::Allowed && !servers.is_empty() {
        let servers: BTreeSet<_> = servers.iter().map(ToString::to_string).collect();
        let servers: Vec<_> = servers.into_iter().collect();
        for protocol in ["udp", "tcp"] {
            rules.push(format!(
                "ip daddr {{ {} }} {protocol} dport 53 dnat ip to {SERVICE_ADDRESS}:53",
                servers.join(", ")
            ));
        }
    }
    if policy.proxy().is_some() {
        // There is no other way out, and the broker decides as the rules below would.
        rules.push(format!("meta l4proto tcp {broker}"));
    } else if policy.has_domains() || policy.has_headers() {
        rules.push(format!("tcp dport {{ 80, 443 }} {broker}"));
    }
    if let Some(allowed) = matching(&own.allow, policy.allowed_ranges()) {
        rules.push(format!("{allowed}return"));
    }
    if let Some(denied) = matching(&own.deny, policy.denied_ranges()) {
        rules.push(format!("meta l4proto tcp {denied}{broker}"));
    }
    rules
        .into_iter()
        .map(|rule| (own.redirects.as_str(), rule))
        .collect()
}

/// Takes back what [`install`] did; fine where it did nothing.
pub(crate) fn uninstall(slot: Slot) -> String {
    let own = Own::of(slot);
    let address = slot.address();
    let mut text = String::new();
    for (map, chain) in [("policies", &own.packets), ("redirects", &own.redirects)] {
        // What is to be deleted must be there.
        let _ok = write!(
            text,
            "add chain inet warren {chain}\n\
             add element inet warren {map} {{ {address} : jump {chain} }}\n\
             delete element inet warren {map} {{ {address} : jump {chain} }}\n\
             flush chain inet warren {chain}\n\
             delete chain inet warren {chain}\n"
        );
    }
    for set in [&own.allow, &own.deny] {
        let _ok = write!(
            text,
            "add set inet warren {set} {{ type ipv4_addr; flags interval; }}\n\
             delete set inet warren {set}\n"
        );
    }
    text
}

fn elements(text: &mut String, list: impl Iterator<Item = String>) {
    let list: Vec<_> = list.collect();
    if !list.is_empty() {
        let _ok = write!(text, "elements = {{ {} }} ", list.join(", "));
    }
}

/// Name of the instance's table on the host.
pub(crate) fn host_table(instance: &str) -> String {
    format!("warren-{instance}")
}

/// Rules on the host: the router's traffic is masqueraded, reaches nothing of the host
/// itself but `edge`, and nothing starts a connection towards the router.
pub(crate) fn host(
    instance: &str,
    link: &str,
    router: Ipv4Addr,
    edge: Option<SocketAddr>,
) -> String {
    let table = host_table(instance);
    let edge = edge
        .and_then(|edge| opening(link, edge))
        .unwrap_or_default();
    format!(
        "table ip {table}
delete table ip {table}
table ip {table} {{
chain outbound {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {router} oifname != \"{link}\" masquerade
}}
chain input {{
    type filter hook input priority filter - 10; policy accept;
{edge}    iifname \"{link}\" drop
}}
chain forward {{
    type filter hook forward priority filter - 10; policy accept;
    oifname \"{link}\" ct state new,invalid drop
}}
}}
"
    )
}

/// Rules that let connections to the server in. Only IPv4 leaves a sandbox.
fn opening(link: &str, edge: SocketAddr) -> Option<String> {
    let to = match edge.ip() {
        ip if ip.is_unspecified() => String::new(),
        IpAddr::V4(ip) => format!("ip daddr {ip} "),
        IpAddr::V6(_) => return None,
    };
    let packets = format!("    iifname \"{link}\" {to}tcp dport {}", edge.port());
    Some(format!(
        "{packets} ct state new ct count over {CONNECTIONS} drop\n{packets} accept\n"
    ))
}

#[cfg(test)]
mod tests {
    use warren_types::EgressRules;

    use super::super::host::load_rules;
    use super::*;

    fn policy(domains: &[&str], allow: &[&str], deny: &[&str]) -> EgressPolicy {
        let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect();
        EgressPolicy::new(EgressRules {
            domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
            allow: nets(allow),
            deny: nets(deny),
            dns_servers: vec![Ipv4Addr::new(8, 8, 8, 8)],
            ..EgressRules::default()
        })
    }

    fn ruleset() -> String {
        let listed = std::process::Command::new("nft")
            .args(["list", "ruleset"])
            .output()
            .unwrap();
        String::from_utf8(listed.stdout).unwrap()
    }

    #[test]
    fn nothing_of_the_host_is_reached_but_the_port_of_the_server() {
        let checked = std::thread::spawn(|| {
            warren_sys::netns::enter_new().unwrap();
            let rules = |edge: Option<&str>| {
                let edge = edge.map(|edge| edge.parse().unwrap());
                load_rules(&host("x", "l0", Ipv4Addr::new(10, 213, 0, 2), edge)).unwrap();
                ruleset()
            };
            let closed = rules(None);
            assert!(!closed.contains("dport"), "{closed}");
            assert!(rules(Some("0.0.0.0:443")).contains("iifname \"l0\" tcp dport 443 accept"));
            let one = rules(Some("203.0.113.7:3000"));
            assert!(
                one.contains("ip daddr 203.0.113.7 tcp dport 3000 accept"),
                "{one}"
            );
            assert_eq!(rules(Some("[2001:db8::1]:443")), closed);
        });
        checked.join().unwrap();
    }

    #[test]
    fn policies_are_put_in_force_replaced_and_taken_back() {
        // In a network namespace of the thread's own, which nft inherits. Needs root.
        let checked = std::thread::spawn(|| {
            warren_sys::netns::enter_new().unwrap();
            let slot = Slot::from_number(7).unwrap();
            load_rules(&router(&["10.1.0.0/16".to_owned()], &[], true)).unwrap();
            let before = ruleset();
            load_rules(&uninstall(slot)).unwrap();
            for policy in [
                policy(&["a.b"], &["1.1.1.0/24", "1.1.1.1"], &["0.0.0.0/0"]),
                policy(&[], &[], &["9.9.9.9"]),
                policy(&[], &["255.255.255.255"], &["0.0.0.0/1", "200.0.0.0/8"]),
            ] {
                load_rules(&install(slot, &policy)).unwrap();
                load_rules(&install(slot, &policy)).unwrap();
                let listed = ruleset();
                assert!(listed.contains("100.64.0.15 : jump f7"), "{listed}");
                assert_eq!(listed.contains("udp dport 443"), policy.has_domains());
            }
            let proxied = EgressPolicy::new(EgressRules {
                proxy: Some(warren_types::EgressProxy {
                    host: "proxy.test".to_owned(),
                    port: 1080,
                    username: None,
                    sealed_password: None,
                    tls: None,
                }),
                ..EgressRules::default()
            });
            load_rules(&install(slot, &proxied)).unwrap();
            assert!(ruleset().contains("meta l4proto tcp dnat"), "{}", ruleset());
            load_rules(&uninstall(slot)).unwrap();
            load_rules(&uninstall(slot)).unwrap();
            assert_eq!(ruleset(), before);
        });
        checked.join().unwrap();
    }
}
