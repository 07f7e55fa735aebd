//! Joins the server with its names and certificates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rustls::ServerConfig;
use tokio::net::{TcpListener, UdpSocket};
use warren_address::acme::{Acme, Solver};
use warren_address::files::Files;
use warren_address::{Authority, Certificates, Zone, host_of, serve_tcp, serve_udp};
use warren_service::Tasks;

use crate::cli::address::Address;
use crate::data::DataDir;

/// Where private authorities keep their files.
pub(crate) fn authorities(data_dir: &Path) -> PathBuf {
    data_dir.join("tls")
}

/// Starts what names and certificates need, and returns what TLS connections are taken with.
pub(crate) async fn open(
    args: &Address,
    data: &DataDir,
    domain: &str,
    listen: SocketAddr,
    tasks: &Tasks,
) -> anyhow::Result<Option<Arc<ServerConfig>>> {
    let host = host_of(domain);
    let zone = match args.dns_listen {
        Some(at) => Some(serve_zone(args, at, &host, listen, tasks).await?),
        None => None,
    };
    if args.no_tls {
        return Ok(None);
    }
    let certificates = if let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) {
        let files = Files {
            certificate: certificate.clone(),
            key: key.clone(),
        };
        let certificates = Certificates::fixed(Some(files.load()?));
        tasks.spawn(files.watch(certificates.clone()));
        certificates
    } else if args.acme {
        let certificates = Certificates::fixed(None);
        tasks.spawn(acme(args, data, host, zone)?.keep(certificates.clone()));
        certificates
    } else {
        let authority = Authority::open(&authorities(data.path()), &host, &own_addresses(listen))?;
        Certificates::of_authority(authority)
    };
    Ok(Some(Arc::new(certificates.server_config())))
}

/// Addresses that clients reach the server at without a name.
fn own_addresses(listen: SocketAddr) -> Vec<IpAddr> {
    let mut addresses = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    if !listen.ip().is_loopback() && !listen.ip().is_unspecified() {
        addresses.push(listen.ip());
    }
    addresses
}

fn acme(
    args: &Address,
    data: &DataDir,
    domain: String,
    zone: Option<Zone>,
) -> anyhow::Result<Acme> {
    let solver = match (&args.acme_dns_hook, args.acme_tls_alpn, zone) {
        (Some(program), _, _) => Solver::Hook(program.clone()),
        (None, true, _) => Solver::TlsAlpn,
        (None, false, Some(zone)) => Solver::Zone(zone),
        (None, false, None) => anyhow::bail!(
            "--acme has no way to prove {domain}\nhint: delegate the domain to this machine and give --dns-listen, or give --acme-dns-hook or --acme-tls-alpn"
        ),
    };
    Ok(Acme {
        directory: args.acme_directory.clone(),
        root: args.acme_root.clone(),
        email: args.acme_email.clone(),
        dir: data.path().join("acme").join(&domain),
        domain,
        solver,
    })
}

async fn serve_zone(
    args: &Address,
    at: SocketAddr,
    domain: &str,
    listen: SocketAddr,
    tasks: &Tasks,
) -> anyhow::Result<Zone> {
    let addresses = if !args.dns_address.is_empty() {
        args.dns_address.clone()
    } else if listen.ip().is_unspecified() {
        anyhow::ensure!(
            at.ip().is_loopback(),
            "names can't be answered with the address listened on, {}\nhint: give the public address with --dns-address",
            listen.ip()
        );
        vec![Ipv4Addr::LOCALHOST.into()]
    } else {
        vec![listen.ip()]
    };
    let context = || {
        format!(
            "answer DNS on {at}\nhint: choose another address with --dns-listen; a resolver of the system may use the port"
        )
    };
    let udp = UdpSocket::bind(at).await.with_context(context)?;
    let at_tcp = SocketAddr::new(at.ip(), udp.local_addr()?.port());
    let tcp = TcpListener::bind(at_tcp).await.with_context(context)?;
    let zone = Zone::new(domain, addresses);
    tasks.spawn(serve_udp(udp, zone.clone()));
    tasks.spawn(serve_tcp(tcp, zone.clone(), tasks.clone()));
    Ok(zone)
}
