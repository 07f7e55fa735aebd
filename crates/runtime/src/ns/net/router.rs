//! The router namespace and the threads that work in network namespaces.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use warren_sys::netlink::{Socket, nflog, rtnl};
use warren_sys::netns;
use warren_types::egress::EgressPolicy;
use warren_types::{EgressRules, NetworkPolicy};

use super::super::config::NsConfig;
use super::super::instance::Instance;
use super::super::shim::GUEST_LINK;
use super::super::slot::Slot;
use super::super::worker::Worker;
use super::{host, rules};

/// Address of the services that the node offers to sandboxes: name resolution and events.
pub(crate) const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The router's end of the link to the host.
pub(super) const UPLINK: &str = "up0";

/// Sockets of the thread that lives in the router.
#[derive(Debug)]
struct Sockets {
    route: Socket,
    firewall: Socket,
}

/// The network of an instance.
#[derive(Debug)]
pub(crate) struct Network {
    instance: Instance,
    pin: PathBuf,
    netns: Arc<OwnedFd>,
    mtu: u32,
    /// One long-lived socket each: closing a firewall socket after a removal waits for a
    /// grace period of the kernel.
    router: Worker<Sockets>,
    visitor: Worker<()>,
    policies: Policies,
    /// Taken by who tells of refusals.
    refused: Mutex<Option<nflog::Listener>>,
}

/// The policies in force that are more than all or nothing.
type Policies = Arc<RwLock<HashMap<Slot, Arc<EgressPolicy>>>>;

impl Network {
    /// Makes the network, or takes over what an earlier process of this instance left.
    /// `denied` are the slots that may not leave.
    pub(crate) fn open(
        instance: &Instance,
        config: &NsConfig,
        denied: &[Slot],
    ) -> io::Result<Self> {
        let pin = instance.run_dir().join("netns");
        let network = Self::pinned(instance, &pin).and_then(|(netns, fresh)| {
            Self::with_router(instance, &pin, netns, fresh, (config, denied))
        });
        if network.is_err() {
            // The first failure is the one to tell.
            let _ = release(instance, &pin);
        }
        network
    }

    fn pinned(instance: &Instance, pin: &Path) -> io::Result<(OwnedFd, bool)> {
        fs::create_dir_all(instance.run_dir())?;
        match File::open(pin) {
            Ok(file) if is_namespace(&file) => return Ok((file.into(), false)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                File::create(pin)?;
            }
            Err(error) => return Err(error),
        }
        let pin = pin.to_owned();
        let made = std::thread::spawn(move || {
            netns::enter_new()?;
            mount_bind("/proc/thread-self/ns/net", &pin)?;
            netns::current()
        });
        let netns = made
            .join()
            .map_err(|_| io::Error::other("thread panicked"))??;
        Ok((netns, true))
    }

    fn with_router(
        instance: &Instance,
        pin: &Path,
        netns: OwnedFd,
        fresh: bool,
        (config, denied): (&NsConfig, &[Slot]),
    ) -> io::Result<Self> {
        let netns = Arc::new(netns);
        let inside = Arc::clone(&netns);
        let router = Worker::start("warren-router", 1, move || {
            netns::enter(inside.as_fd())?;
            Ok(Sockets {
                route: Socket::route()?,
                firewall: Socket::netfilter()?,
            })
        })?;
        let visitor = Worker::start("warren-visitor", 1, || Ok(()))?;
        let mtu = host::mtu();
        let refused = router.run_blocking(|_| Ok(nflog::Listener::open(rules::GROUP)))?;
        let refused = refused
            .inspect_err(|error| {
                tracing::warn!(%error, "the kernel can't tell of packets that it refuses; \
                    only refused TCP connections are logged");
            })
            .ok();
        let tell = refused.is_some();
        let network = Self {
            instance: instance.clone(),
            pin: pin.to_owned(),
            netns,
            mtu,
            router,
            visitor,
            policies: Policies::default(),
            refused: Mutex::new(refused),
        };
        let denied: Vec<_> = denied.iter().map(|slot| slot.address()).collect();
        let text = rules::router(&config.allowed_egress, &denied, tell);
        network
            .router
            .run_blocking(move |_| host::load_rules(&text))?;
        let link = instance.link();
        if fresh || rtnl::index_of(&link).is_err() {
            network.connect(&link)?;
        }
        host::forwarding_acquire(instance.name())?;
        host::passage_open(&link)?;
        let router_address = network.uplink_addresses()?.1;
        let rules = rules::host(instance.name(), &link, router_address, config.edge);
        host::load_rules(&rules)?;
        Ok(network)
    }

    /// Host's and router's address of the uplink.
    fn uplink_addresses(&self) -> io::Result<(Ipv4Addr, Ipv4Addr)> {
        let text = fs::read_to_string(self.instance.run_dir().join("uplink"))?;
        let network: Ipv4Addr = text.trim().parse().map_err(io::Error::other)?;
        let at = |offset| Ipv4Addr::from_bits(network.to_bits() + offset);
        Ok((at(1), at(2)))
    }

    /// Makes the uplink and sets up the router's own links.
    fn connect(&self, link: &str) -> io::Result<()> {
        let network = host::free_network(self.instance.seed())?;
        fs::write(self.instance.run_dir().join("uplink"), network.to_string())?;
        let (host_address, router_address) = self.uplink_addresses()?;
        let mut on_host = Socket::route()?;
        on_host.veth_create(
            rtnl::End {
                name: link,
                netns: None,
            },
            rtnl::End {
                name: UPLINK,
                netns: Some(self.netns.as_fd()),
            },
            self.mtu,
        )?;
        on_host.address_add(rtnl::index_of(link)?, host_address, 30)?;
        // Nothing on this link speaks IPv6.
        disable_ipv6(link)?;
        self.router.run_blocking(move |sockets| {
            disable_ipv6("all")?;
            disable_ipv6("default")?;
            fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            let uplink = rtnl::index_of(UPLINK)?;
            let route = &mut sockets.route;
            route.link_up(rtnl::LOOPBACK)?;
            route.address_add(rtnl::LOOPBACK, SERVICE_ADDRESS, 32)?;
            route.link_up(uplink)?;
            route.address_add(uplink, router_address, 30)?;
            route.route_add((Ipv4Addr::UNSPECIFIED, 0), host_address, uplink)
        })
    }

    /// Links a sandbox's namespace to the router.
    pub(crate) fn link(&self, slot: Slot, sandbox: Arc<OwnedFd>) -> io::Result<()> {
        let mtu = self.mtu;
        self.router.run_blocking(move |sockets| {
            let name = slot.link();
            let here = rtnl::End {
                name: &name,
                netns: None,
            };
            let there = rtnl::End {
                name: GUEST_LINK,
                netns: Some(sandbox.as_fd()),
            };
            sockets.route.veth_create(here, there, mtu)?;
            let index = rtnl::index_of(&name)?;
            sockets.route.address_add(index, slot.gateway(), 31)
        })
    }

    /// Replaces what may leave a slot; in force on return.
    pub(crate) async fn set_policy(&self, slot: Slot, policy: NetworkPolicy) -> io::Result<()> {
        let policies = Arc::clone(&self.policies);
        self.router
            .run(move |sockets| change_policy(sockets, &policies, slot, &policy))
            .await
    }

    /// The same for threads.
    pub(crate) fn set_policy_blocking(&self, slot: Slot, policy: NetworkPolicy) -> io::Result<()> {
        let policies = Arc::clone(&self.policies);
        self.router
            .run_blocking(move |sockets| change_policy(sockets, &policies, slot, &policy))
    }

    /// The policy of a slot, if it is more than all or nothing.
    pub(crate) fn policy(&self, slot: Slot) -> Option<Arc<EgressPolicy>> {
        let policies = self.policies.read();
        policies
            .unwrap_or_else(PoisonError::into_inner)
            .get(&slot)
            .cloned()
    }

    /// Who tells of refused packets; `None` after the first call, or where the kernel can't.
    pub(crate) fn take_refused(&self) -> Option<nflog::Listener> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.take()
    }

    /// Makes a non-blocking TCP socket in the router.
    pub(crate) async fn router_socket(&self) -> io::Result<std::net::TcpStream> {
        self.tcp_socket(Arc::clone(&self.netns), AddressFamily::INET)
            .await
    }

    /// Makes a non-blocking TCP socket inside a network namespace.
    pub(crate) async fn tcp_socket(
        &self,
        inside: Arc<OwnedFd>,
        family: AddressFamily,
    ) -> io::Result<std::net::TcpStream> {
        let mut made = self.tcp_sockets(inside, family, 1).await?;
        Ok(made.pop().ok_or(io::ErrorKind::OutOfMemory)?)
    }

    /// Makes several, at least one, in one visit.
    pub(crate) async fn tcp_sockets(
        &self,
        inside: Arc<OwnedFd>,
        family: AddressFamily,
        count: usize,
    ) -> io::Result<Vec<std::net::TcpStream>> {
        let make = move || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = || -> io::Result<std::net::TcpStream> {
                Ok(socket_with(family, SocketType::STREAM, flags, None)?.into())
            };
            let mut made = vec![socket()?];
            // Those that are for later may fail.
            made.extend((1..count).map_while(|_| socket().ok()));
            Ok(made)
        };
        self.visitor.run(move |()| visit(&inside, make)).await
    }

    /// Binds a non-blocking TCP listener inside a network namespace.
    pub(crate) async fn tcp_listener(
        &self,
        inside: Arc<OwnedFd>,
        address: SocketAddr,
    ) -> io::Result<TcpListener> {
        let bind = move || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        self.visitor.run(move |()| visit(&inside, bind)).await
    }

    /// Binds a UDP socket in the router.
    pub(crate) fn bind_udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        let netns = Arc::clone(&self.netns);
        let bind = move || {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        self.visitor.run_blocking(move |()| visit(&netns, bind))
    }

    /// Binds a TCP listener in the router.
    pub(crate) fn bind_tcp(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let netns = Arc::clone(&self.netns);
        let bind = move || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        self.visitor.run_blocking(move |()| visit(&netns, bind))
    }

    /// Takes the network down; no sandbox may need it any more.
    pub(crate) fn release(&self) -> io::Result<()> {
        release(&self.instance, &self.pin)
    }
}

/// Changes rules in an order in which nothing leaves that neither policy lets out.
fn change_policy(
    sockets: &mut Sockets,
    policies: &Policies,
    slot: Slot,
    policy: &NetworkPolicy,
) -> io::Result<()> {
    let table = || policies.write().unwrap_or_else(PoisonError::into_inner);
    if let (true, Some(rules)) = (policy.internet, &policy.egress) {
        let compiled = Arc::new(EgressPolicy::new(EgressRules::clone(rules)));
        host::load_rules(&rules::install(slot, &compiled))?;
        table().insert(slot, compiled);
        return change_denied(sockets, slot, false);
    }
    if !policy.internet {
        change_denied(sockets, slot, true)?;
    }
    let had_rules = table().contains_key(&slot);
    if had_rules {
        host::load_rules(&rules::uninstall(slot))?;
        table().remove(&slot);
    }
    if policy.internet {
        change_denied(sockets, slot, false)?;
    }
    Ok(())
}

fn change_denied(sockets: &mut Sockets, slot: Slot, denied: bool) -> io::Result<()> {
    match sockets
        .firewall
        .set_element(rules::DENIED, slot.address(), denied)
    {
        Err(error) if !denied && error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Runs `action` in a network namespace. The thread stays there: it enters the one it needs
/// before each action.
fn visit<T>(inside: &OwnedFd, action: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    netns::enter(inside.as_fd())?;
    action()
}

fn disable_ipv6(link: &str) -> io::Result<()> {
    let path = Path::new("/proc/sys/net/ipv6/conf")
        .join(link)
        .join("disable_ipv6");
    if path.exists() {
        fs::write(path, "1")
    } else {
        Ok(())
    }
}

fn is_namespace(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|stat| stat.f_type == NSFS_MAGIC)
}
/// File system type of namespace files.
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

fn release(instance: &Instance, pin: &Path) -> io::Result<()> {
    let absent = |result: io::Result<()>| match result {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
            ) || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) =>
        {
            Ok(())
        }
        other => other,
    };
    let results = [
        host::passage_close(&instance.link()),
        host::delete_table("ip", &rules::host_table(instance.name())),
        absent(Socket::route().and_then(|mut socket| socket.link_delete(&instance.link()))),
        absent(unmount(pin, UnmountFlags::DETACH).map_err(Into::into)),
        absent(fs::remove_file(pin)),
        absent(fs::remove_file(instance.run_dir().join("uplink"))),
        host::forwarding_release(instance.name()),
    ];
    results.into_iter().collect()
}
