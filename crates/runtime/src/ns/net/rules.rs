//! Texts of the static firewall rules. Pure.

use std::fmt::Write;
use std::net::Ipv4Addr;

use super::router::{SERVICE_ADDRESS, UPLINK};

/// Table and set (in the router) of addresses that may not leave.
pub(crate) const DENIED: (&str, &str) = ("warren", "denied");

/// Destinations that are never public.
const BLOCKED: &[&str] = &[
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

/// Rules of the router. `denied` are addresses that may not leave from the start.
pub(crate) fn router(allowed: &[String], denied: &[Ipv4Addr]) -> String {
    let mut text = String::from(
        "table inet warren\ndelete table inet warren\ntable inet warren {\n\
         set denied { type ipv4_addr; ",
    );
    elements(&mut text, denied.iter().map(ToString::to_string));
    text.push_str("}\nset blocked { type ipv4_addr; flags interval; ");
    elements(&mut text, BLOCKED.iter().map(ToString::to_string));
    text.push_str("}\nset allowed { type ipv4_addr; flags interval; auto-merge; ");
    elements(&mut text, allowed.iter().cloned());
    // Formatting into a string can't fail.
    let _ok = write!(
        text,
        "}}
set connections {{ type ipv4_addr; flags dynamic; size 65536; }}
chain anti_spoof {{
    type filter hook prerouting priority raw; policy accept;
    iifname \"s*\" fib saddr . iif oif missing drop
    iifname \"s*\" meta nfproto ipv6 drop
}}
chain input {{
    type filter hook input priority filter; policy drop;
    iifname \"lo\" accept
    iifname \"s*\" ip daddr {SERVICE_ADDRESS} tcp dport 80 accept
    iifname \"s*\" ip saddr @denied reject with icmp type admin-prohibited
    iifname \"s*\" ip daddr {SERVICE_ADDRESS} udp dport 53 accept
    iifname \"s*\" ip daddr {SERVICE_ADDRESS} tcp dport 53 accept
}}
chain forward {{
    type filter hook forward priority filter; policy drop;
    ip saddr @denied reject with icmp type admin-prohibited
    ip daddr @denied drop
    ct state invalid drop
    iifname \"{UPLINK}\" ct state established,related accept
    iifname \"s*\" oifname \"{UPLINK}\" jump egress
}}
chain egress {{
    ip daddr != @allowed ip daddr @blocked reject with icmp type admin-prohibited
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
/// itself, and nothing starts a connection towards the router.
pub(crate) fn host(instance: &str, link: &str, router: Ipv4Addr) -> String {
    let table = host_table(instance);
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
    iifname \"{link}\" drop
}}
chain forward {{
    type filter hook forward priority filter - 10; policy accept;
    oifname \"{link}\" ct state new,invalid drop
}}
}}
"
    )
}
