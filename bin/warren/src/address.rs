//! Joins the server with its names and certificates.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use axum::body::Body;
use http::header::{HOST, LOCATION};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use rustls::ServerConfig;
use tokio::net::{TcpListener, UdpSocket};
use warren_address::acme::{Acme, Solver};
use warren_address::files::Files;
use warren_address::{Authority, Certificates, Challenges, Zone, host_of, serve_tcp, serve_udp};
use warren_proxy::{ListenerConfig, serve};
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
        let solver = solver(args, &host, domain, zone, tasks).await?;
        let acme = acme(args, data, host, solver);
        tasks.spawn(acme.keep(certificates.clone()));
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

fn acme(args: &Address, data: &DataDir, domain: String, solver: Solver) -> Acme {
    Acme {
        directory: args.acme_directory.clone(),
        root: args.acme_root.clone(),
        email: args.acme_email.clone(),
        dir: data.path().join("acme").join(&domain),
        domain,
        solver,
    }
}

/// How names are proven. `domain` has its port, `host` has not.
async fn solver(
    args: &Address,
    host: &str,
    domain: &str,
    zone: Option<Zone>,
    tasks: &Tasks,
) -> anyhow::Result<Solver> {
    if let Some(program) = &args.acme_dns_hook {
        return Ok(Solver::Hook(program.clone()));
    }
    if args.acme_tls_alpn {
        return Ok(Solver::TlsAlpn);
    }
    if let Some(at) = args.acme_http_listen {
        let challenges = Challenges::default();
        serve_challenges(at, challenges.clone(), domain, tasks).await?;
        return Ok(Solver::Http(challenges));
    }
    zone.map(Solver::Zone).with_context(|| {
        format!(
            "--acme has no way to prove {host}\nhint: delegate the domain to this machine and give --dns-listen, or give --acme-dns-hook, --acme-http-listen or --acme-tls-alpn"
        )
    })
}

/// Answers HTTP-01 challenges, and sends everybody else on to HTTPS.
async fn serve_challenges(
    at: SocketAddr,
    challenges: Challenges,
    domain: &str,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(at).await.with_context(|| {
        format!(
            "answer ACME challenges on {at}\nhint: choose another address with --acme-http-listen; a web server may use the port"
        )
    })?;
    let port = domain.rsplit_once(':').map(|(_, port)| format!(":{port}"));
    let port = port.unwrap_or_default();
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = challenge_answer(&request, &challenges, &port);
        async move { Ok::<_, Infallible>(answer) }
    });
    let stop = tasks.stop_token().clone();
    tasks.spawn(serve(listener, service, stop, ListenerConfig::default()));
    Ok(())
}

fn challenge_answer<B>(
    request: &Request<B>,
    challenges: &Challenges,
    port: &str,
) -> Response<Body> {
    let path = request.uri().path();
    if let Some(token) = path.strip_prefix(Challenges::PATH) {
        return match challenges.answer(token) {
            Some(proof) => Response::new(Body::from(proof)),
            None => empty(StatusCode::NOT_FOUND),
        };
    }
    let host = request.headers().get(HOST);
    let host = host.and_then(|host| host.to_str().ok()).map(host_of);
    let rest = request
        .uri()
        .path_and_query()
        .map_or("/", |rest| rest.as_str());
    let to = host.and_then(|host| format!("https://{host}{port}{rest}").try_into().ok());
    match to {
        Some(to) => {
            let mut response = empty(StatusCode::PERMANENT_REDIRECT);
            response.headers_mut().insert(LOCATION, to);
            response
        }
        None => empty(StatusCode::BAD_REQUEST),
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_for_no_challenge_is_sent_to_https() {
        let ask = |host: &str, path: &str| {
            let request = Request::get(path).header(HOST, host).body(()).unwrap();
            let answer = challenge_answer(&request, &Challenges::default(), ":8443");
            let to = answer.headers().get(LOCATION).cloned();
            (
                answer.status(),
                to.map(|to| to.to_str().unwrap().to_owned()),
            )
        };
        let (status, to) = ask("3000-i1.d.test:80", "/a?b=c");
        assert_eq!(status, StatusCode::PERMANENT_REDIRECT);
        assert_eq!(to.unwrap(), "https://3000-i1.d.test:8443/a?b=c");
        let unknown = ask("d.test", "/.well-known/acme-challenge/x");
        assert_eq!(unknown, (StatusCode::NOT_FOUND, None));
    }
}
