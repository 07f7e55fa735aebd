//! What the host itself needs so that the router's traffic passes: an uplink address that
//! is free, forwarding switched on, the host's table. All of it is undone by the last
//! instance that leaves.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};

use super::super::instance::RUN_DIR;

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const DEFAULT_MTU: u32 = 1500;

/// Networks of four addresses to choose the uplink's from.
fn candidates(seed: u32) -> impl Iterator<Item = Ipv4Addr> {
    const COUNT: u32 = 1 << 14;
    let first = Ipv4Addr::new(10, 213, 0, 0).to_bits();
    (0..COUNT).map(move |step| Ipv4Addr::from_bits(first + 4 * ((seed + step) % COUNT)))
}

/// One route of `/proc/net/route`: destination and mask.
fn routes(table: &str) -> Vec<(u32, u32)> {
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::swap_bytes);
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            Some((number(fields.get(1)?)?, number(fields.get(7)?)?))
        })
        .collect()
}

/// A network of four addresses that no route but the default one covers.
pub(super) fn free_network(seed: u32) -> io::Result<Ipv4Addr> {
    let routes = routes(&fs::read_to_string("/proc/net/route")?);
    choose(seed, &routes).ok_or_else(|| io::Error::other("no free network for the uplink"))
}

fn choose(seed: u32, routes: &[(u32, u32)]) -> Option<Ipv4Addr> {
    let overlaps = |network: Ipv4Addr| {
        routes.iter().any(|(to, mask)| {
            let common = mask & !3;
            *mask != 0 && network.to_bits() & common == to & common
        })
    };
    candidates(seed).find(|network| !overlaps(*network))
}

/// The largest packet that the host's default route takes.
pub(super) fn mtu() -> u32 {
    let read = || -> Option<u32> {
        let table = fs::read_to_string("/proc/net/route").ok()?;
        let line = table
            .lines()
            .find(|line| line.split_whitespace().nth(1) == Some("00000000"))?;
        let link = line.split_whitespace().next()?;
        fs::read_to_string(Path::new("/sys/class/net").join(link).join("mtu"))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    read().map_or(DEFAULT_MTU, |mtu| mtu.min(DEFAULT_MTU))
}

/// Loads rules with `nft` in the network namespace of the calling thread.
pub(super) fn load_rules(rules: &str) -> io::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(rules.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr)
        .lines()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ");
    Err(io::Error::other(text))
}

/// Deletes a table; no error when there is none.
pub(super) fn delete_table(family: &str, table: &str) -> io::Result<()> {
    load_rules(&format!(
        "table {family} {table}\ndelete table {family} {table}\n"
    ))
}

/// Chains of the host, in the format of `nft list chains`, that drop what they do not know
/// on its way through the host: those of container engines and firewall front ends.
fn dropping_chains(listing: &str) -> Vec<String> {
    let (mut table, mut chain) = ("", "");
    let mut found = Vec::new();
    for line in listing.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("table ") {
            table = rest.trim_end_matches(" {");
        } else if let Some(rest) = line.strip_prefix("chain ") {
            chain = rest.trim_end_matches(" {");
        } else if line.contains("hook forward") && line.contains("policy drop") {
            found.push(format!("{table} {chain}"));
        }
    }
    found
}

fn nft(args: &[&str]) -> io::Result<String> {
    let output = Command::new("nft")
        .args(args)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(io::Error::other(
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}

/// Lets the router's traffic through chains of the host that would drop it.
pub(super) fn passage_open(link: &str) -> io::Result<()> {
    passage_close(link)?;
    for chain in dropping_chains(&nft(&["list", "chains"])?) {
        load_rules(&format!(
            "insert rule {chain} iifname \"{link}\" accept\n\
             insert rule {chain} oifname \"{link}\" ct state established,related accept\n"
        ))?;
    }
    Ok(())
}

/// Takes back what [`passage_open`] did.
pub(super) fn passage_close(link: &str) -> io::Result<()> {
    let quoted = format!("\"{link}\"");
    for chain in dropping_chains(&nft(&["list", "chains"])?) {
        let words: Vec<_> = ["-a", "list", "chain"]
            .into_iter()
            .chain(chain.split(' '))
            .collect();
        for line in nft(&words)?.lines().filter(|line| line.contains(&quoted)) {
            if let Some((_, handle)) = line.rsplit_once("# handle ") {
                load_rules(&format!("delete rule {chain} handle {}\n", handle.trim()))?;
            }
        }
    }
    Ok(())
}

/// Serialises changes of what instances share.
fn locked<T>(change: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let shared = Path::new(RUN_DIR);
    fs::create_dir_all(shared.join("forwarding"))?;
    let path = shared.join("lock");
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    flock(&lock, FlockOperation::LockExclusive)?;
    change(shared)
}

/// Notes that the instance needs forwarding and switches it on.
pub(super) fn forwarding_acquire(instance: &str) -> io::Result<()> {
    locked(|shared| {
        let saved = shared.join("forwarding.before");
        if !saved.exists() {
            fs::write(&saved, fs::read_to_string(IP_FORWARD)?)?;
        }
        fs::write(shared.join("forwarding").join(instance), "")?;
        fs::write(IP_FORWARD, "1")
    })
}

/// Notes that the instance no longer needs forwarding; the last one puts back what was.
pub(super) fn forwarding_release(instance: &str) -> io::Result<()> {
    locked(|shared| {
        match fs::remove_file(shared.join("forwarding").join(instance)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if fs::read_dir(shared.join("forwarding"))?.next().is_some() {
            return Ok(());
        }
        let saved = shared.join("forwarding.before");
        match fs::read_to_string(&saved) {
            Ok(before) => {
                fs::write(IP_FORWARD, before.trim())?;
                fs::remove_file(saved)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_that_drop_forwarded_packets_are_found() {
        let listing = "table ip filter {\n\tchain INPUT {\n\t\ttype filter hook input priority \
            filter; policy drop;\n\t}\n\tchain FORWARD {\n\t\ttype filter hook forward \
            priority filter; policy drop;\n\t}\n}\ntable inet other {\n\tchain pass {\n\t\t\
            type filter hook forward priority filter; policy accept;\n\t}\n}\n";
        assert_eq!(dropping_chains(listing), ["ip filter FORWARD"]);
    }

    #[test]
    fn a_passage_through_a_dropping_chain_is_opened_and_closed() {
        // In a network namespace of the thread's own, which nft inherits. Needs root.
        let checked = std::thread::spawn(|| {
            warren_sys::netns::enter_new().unwrap();
            let chain = "{ type filter hook forward priority 0; policy drop; }";
            load_rules(&format!("table ip filter {{\nchain FORWARD {chain}\n}}\n")).unwrap();
            passage_open("wrn0").unwrap();
            passage_open("wrn0").unwrap();
            let open = nft(&["list", "ruleset"]).unwrap();
            assert_eq!(open.matches("\"wrn0\"").count(), 2, "{open}");
            passage_close("wrn0").unwrap();
            assert!(!nft(&["list", "ruleset"]).unwrap().contains("wrn0"));
        });
        checked.join().unwrap();
    }

    #[test]
    fn the_uplink_avoids_networks_that_the_host_routes() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
            eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n\
            vpn\t0000D50A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n";
        let routes = routes(table);
        assert_eq!(routes[1], (0x0AD5_0000, 0xFFFF_FF00));
        assert_eq!(choose(0, &routes), Some(Ipv4Addr::new(10, 213, 1, 0)));
        assert_eq!(choose(0, &[(0x0A00_0000, 0xFF00_0000)]), None);
    }
}
