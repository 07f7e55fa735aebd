//! Joins what leaves sandboxes by name with the runtime, whose router hands it over, and the
//! node, which keeps the logs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use anyhow::Context;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use warren_egress::{Broker, Dns, Gate, Identity, Limits, Resolver, Trust};
use warren_node::Node;
use warren_runtime::ns::{BROKER_PORT, NsRuntime, Refused, RefusedLog, Why};
use warren_service::{Chain, Tasks};
use warren_types::egress::EgressPolicy;

use crate::cli::Up;
use crate::vault::ControlVault;

const DNS_PORT: u16 = 53;

/// The host's side of the broker.
#[derive(Debug)]
struct HostGate {
    runtime: Arc<NsRuntime>,
    node: Arc<Node<NsRuntime>>,
}

#[async_trait::async_trait]
impl Gate for HostGate {
    fn policy(&self, peer: IpAddr) -> Option<Arc<EgressPolicy>> {
        self.runtime.egress_of(peer)
    }

    fn identity(&self, peer: IpAddr) -> Option<Identity> {
        self.node.identity_in_slot(self.runtime.slot_of(peer)?)
    }

    fn log(&self, peer: IpAddr, line: &str) {
        if let Some(slot) = self.runtime.slot_of(peer) {
            self.node.warn_in_slot(slot, line);
        }
    }

    fn is_public(&self, address: Ipv4Addr) -> bool {
        self.runtime.is_public(address)
    }

    async fn connect(&self, to: SocketAddrV4) -> io::Result<TcpStream> {
        let socket = self.runtime.router_socket().await?;
        TcpSocket::from_std_stream(socket).connect(to.into()).await
    }
}

/// Serves names and the broker to sandboxes, and tells of what the router refuses. `vault`
/// gives the values that header rules name. Returns what resolves names as for sandboxes.
pub(crate) fn serve(
    args: &Up,
    runtime: &Arc<NsRuntime>,
    node: &Arc<Node<NsRuntime>>,
    vault: ControlVault,
    tasks: &Tasks,
) -> anyhow::Result<Resolver> {
    let resolvers = &args.resolver;
    let dns = if resolvers.is_empty() {
        Dns::new("/etc/resolv.conf".into()).context(
            "find the host's name servers\nhint: put a nameserver line into /etc/resolv.conf, or \
             name one with --resolver",
        )?
    } else {
        Dns::fixed(resolvers)
    };
    let udp = runtime.bind_udp(DNS_PORT);
    let udp = UdpSocket::from_std(udp.context("serve names to sandboxes")?)?;
    let tcp = runtime.bind_tcp(DNS_PORT);
    let tcp = TcpListener::from_std(tcp.context("serve names to sandboxes")?)?;
    let broker = runtime.bind_tcp(BROKER_PORT);
    let listener = TcpListener::from_std(broker.context("serve the way out of sandboxes")?)?;
    let gate: Arc<dyn Gate> = Arc::new(HostGate {
        runtime: Arc::clone(runtime),
        node: Arc::clone(node),
    });
    let resolver = Resolver::new(dns.clone());
    let broker = Broker::new(
        Arc::clone(&gate),
        Arc::new(vault),
        resolver.clone(),
        Trust::of_host(args.egress_ca_file.as_deref())?,
        Limits::default(),
        tasks.clone(),
    );
    tasks.spawn(dns.serve(udp, tcp, gate, tasks.clone()));
    tasks.spawn(broker.serve(listener));
    if let Some(log) = runtime.take_refused()? {
        let (runtime, node) = (Arc::clone(runtime), Arc::clone(node));
        tasks.spawn(tell(log, runtime, node, tasks.clone()));
    }
    Ok(resolver)
}

/// Writes what the router refuses into the logs of the sandboxes. It lets through no more
/// than a log can bear.
async fn tell(
    mut log: RefusedLog,
    runtime: Arc<NsRuntime>,
    node: Arc<Node<NsRuntime>>,
    tasks: Tasks,
) {
    loop {
        let refused = tokio::select! {
            () = tasks.stop_token().cancelled() => return,
            refused = log.next() => refused,
        };
        match refused {
            Ok(refused) => {
                for one in refused {
                    node.warn_in_slot(one.slot, &line(&one, runtime.egress_in(one.slot)));
                }
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "refused packets are no longer logged");
                return;
            }
        }
    }
}

fn line(refused: &Refused, policy: Option<Arc<EgressPolicy>>) -> String {
    let rule = match (refused.why, policy) {
        (Why::Blocked, _) => "the address is not public".to_owned(),
        (Why::NoInternet, _) => "denyOut 0.0.0.0/0".to_owned(),
        (Why::Denied, Some(policy)) => policy.denied_by(*refused.to.ip()),
        (Why::Denied, None) => "denyOut".to_owned(),
        (Why::Quic, _) => "QUIC does not show names".to_owned(),
        (Why::Connections, _) => "too many connections".to_owned(),
    };
    let to = refused.to;
    if to.port() == 0 {
        format!("egress refused: {} {}: {rule}", refused.protocol, to.ip())
    } else {
        format!("egress refused: {} {to}: {rule}", refused.protocol)
    }
}
