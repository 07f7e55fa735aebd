//! `warren up`: joins the parts into a server and runs it until a signal.

use std::future::Future;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use warren_api::ApiConfig;
use warren_cluster::{BuildHost, NodeHandle};
use warren_control::{BuildSpec, By, Control, ControlConfig, Limits, NewKey, WebhookConfig};
use warren_egress::Resolver;
use warren_node::services::Events;
use warren_node::{Node, NodeConfig, PauseConfig, StopMode, WarmConfig};
use warren_proxy::{ListenerConfig, Proxy, ProxyConfig, is_sandbox_traffic, serve, watch};
use warren_runtime::ns::{NsConfig, NsRuntime, Overlay, SERVICE_ADDRESS};
use warren_service::{CancellationToken, Secret, Tasks};
use warren_store::Store;
use warren_template::{LayerStore, base};
use warren_types::Resources;
use warren_volume::Volumes;
use warren_webhook::{Sender, SenderConfig};

use crate::address;
use crate::builds;
use crate::builtin;
use crate::cli::Up;
use crate::data::{DataDir, write_secret};
use crate::demo;
use crate::edge::LocalRoutes;
use crate::egress;
use crate::guest;
use crate::interpreter;
use crate::operator;
use crate::sshserve::Ssh;
use crate::telemetry;
use crate::tools;
use crate::vault::{ControlVault, HostProxyCheck};
use crate::volume;

/// Requests in flight get this long when the server stops; a second signal cuts them.
const DRAIN: Duration = Duration::from_secs(30);
/// Background work gets this long.
const STOP: Duration = Duration::from_secs(10);
/// What was given up gets this long before the process ends.
const ABANDON: Duration = Duration::from_secs(5);
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
const EVENTS_PORT: u16 = 80;

/// Runs the server.
pub(crate) fn run(args: Up) -> anyhow::Result<ExitCode> {
    let _sent = telemetry::init(&args.telemetry)?;
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "sandboxes need root\nhint: run it with sudo"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(start(args));
    // What still blocks was given up.
    runtime.shutdown_timeout(ABANDON);
    done?;
    Ok(ExitCode::SUCCESS)
}

/// Says something to the person at the terminal. Nobody to hear it is no failure.
pub(crate) fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").ok();
}

async fn start(args: Up) -> anyhow::Result<()> {
    // Bound first: a taken port is the cheapest failure, and it must not cost anything.
    let listener = bind(args.listen).await?;
    let listen = listener.local_addr()?;
    let data = DataDir::open(&args.data_dir.path)?;
    operator::ensure_whole(data.path())?;
    let ssh = match args.ssh.ssh_listen {
        Some(address) => Some(Ssh::open(address, &data).await?),
        None => None,
    };
    let programs = guest::unpack(data.path())?;
    let layers_dir = args
        .layers_dir
        .clone()
        .unwrap_or_else(|| data.path().join("layers"));
    let (layers, base_layer) = prepare_base(&layers_dir, args.debian_mirror.as_deref()).await?;
    // Layers of builds belong to this server; those that only packages make may be shared.
    let own_layers = LayerStore::open(&data.path().join("layers"))?;
    let mut layers_dirs = vec![own_layers.dir().to_owned(), layers.dir().to_owned()];
    layers_dirs.dedup();
    let store = Store::open(&data.path().join("warren.db")).await?;

    let runtime = Arc::new(NsRuntime::open(NsConfig {
        data_dir: data.path().to_owned(),
        helper: std::env::current_exe().context("find this program")?,
        prepared: args.slots,
        allowed_egress: args.allow_egress.clone(),
        // Without a domain, names lead to the loopback of whoever asks.
        edge: args.domain.as_ref().map(|_| listen),
        overlay: if args.overlay_by_path {
            Overlay::ByPath
        } else {
            Overlay::Probe
        },
    })?);
    let volumes = Arc::new(volume::open(&args.volume, &data, &runtime).await?);
    let services = Tasks::new();
    let node = Arc::new(
        Node::start(
            node_config(&args, &data, layers_dirs, programs, Arc::clone(&volumes)),
            Arc::clone(&runtime),
        )
        .await?,
    );
    runtime.start_preparing();
    if !args.no_prepare_tools {
        tools::start(&runtime, args.debian_mirror.clone(), &services);
    }
    let vault = ControlVault::default();
    let resolver = serve_guests(&args, &runtime, &node, vault.clone(), &services)?;

    let domain = args
        .domain
        .clone()
        .unwrap_or_else(|| default_domain(listen));
    let tls = address::open(&args.address, &data, &domain, listen, &services).await?;
    let host: Arc<dyn BuildHost> = Arc::clone(&node) as _;
    let shared = layers.clone();
    let stores = (own_layers, layers);
    let builds = builds::open(&args, &data, Arc::clone(&host), stores, &services)?;
    let config = ControlConfig {
        domain: Some(domain.clone()),
        limits: Limits {
            max_sandboxes: args.max_sandboxes,
            max_length: Duration::from_secs(u64::from(args.max_hours) * 3600),
            max_builds: args.max_builds,
            max_cpus: args.max_cpus,
            max_memory_mib: args.max_memory_mib,
            disk_mib: args.base_disk_mib,
            team: args.limits.team(),
            key: args.limits.key(),
            ..Limits::default()
        },
        retention: RETENTION,
        history: args.history.limits(),
        template_env: !args.no_template_env,
        build: Some(builds),
        volumes: Some(volumes),
        write_back_every: Duration::from_secs(args.volume.volume_write_back_secs),
        webhooks: Some(WebhookConfig::new(Sender::new(SenderConfig {
            allow_private: args.webhook_private_addresses,
            ..SenderConfig::default()
        })?)),
        sealer: Some(Arc::new(data.sealer(args.secrets_key_file.as_deref())?)),
        identity: Some(Arc::new(data.identity(issuer(&args, &domain))?)),
        proxies: Some(Arc::new(HostProxyCheck {
            resolver,
            runtime: Arc::clone(&runtime),
        })),
        ..ControlConfig::new(data.token_key()?)
    };
    let handle: Arc<dyn NodeHandle> = Arc::clone(&node) as _;
    let control = Control::new(config, store, handle);
    vault.open(&control);
    let made = control.bootstrap().await?;
    let is_first_start = made.is_some();
    control.run();
    let reconciled = control.reconcile().await?;
    let swept = control.sweep_volumes().await?;
    tracing::info!(swept, ?reconciled, "compared the database with the node");
    control.register_build(base_spec(&args, base_layer)).await?;
    let key = keep_key(&args, &data, &control, made.map(|key| key.clear)).await?;
    interpreter::Preparation {
        control: Arc::clone(&control),
        host,
        store: shared,
        mirror: args.debian_mirror.clone(),
        tasks: services.clone(),
    }
    .start(&args)
    .await?;
    let admin_token = data.admin_token()?;
    let api_config = ApiConfig {
        public_url: args.public_url.clone(),
        admin_token: Some(admin_token.clone()),
        ssh: ssh.as_ref().map(Ssh::facts),
        rate_limits: args.limits.rate_limit.iter().cloned().collect(),
    };
    let api = warren_api::router(Arc::clone(&control), api_config);
    builtin::Builtins {
        control: Arc::clone(&control),
        api: api.clone(),
        key: key.clone(),
        tasks: services.clone(),
    }
    .start(&args)
    .await?;

    if let Some(address) = args.telemetry.metrics_listen {
        serve_meters(bind(address).await?, Arc::clone(&control), &services);
    }
    operator::serve(data.path(), Arc::clone(&control), &services)?;
    let shown = is_first_start.then_some(&key);
    announce(
        listen,
        shown,
        &args.data_dir.path,
        tls.is_some().then_some(&domain),
        args.telemetry.is_json(),
    );
    if let Some(ssh) = ssh {
        let (node, control) = (Arc::clone(&node), Arc::clone(&control));
        services.spawn(ssh.serve(node, control, services.stop_token().clone()));
    }
    let routes = LocalRoutes::new(
        Arc::clone(&node),
        Arc::clone(&control),
        args.limits.sandbox_connections,
    );
    let routes = Arc::new(routes);
    let proxy = Proxy::new(routes, ProxyConfig::default());
    let pages = warren_dashboard::router(Arc::clone(&control), Some(admin_token));
    let pages = pages.fallback_service(api);
    let edge = Edge {
        proxy: proxy.clone(),
        api: TowerToHyperService::new(pages),
    };

    let stop = CancellationToken::new();
    let serving = serve(
        listener,
        edge,
        stop.clone(),
        ListenerConfig {
            header_timeout: Duration::from_secs(args.limits.header_timeout_secs.into()),
            drain_timeout: DRAIN,
            tls,
            ..ListenerConfig::default()
        },
    );
    tokio::pin!(serving);
    if args.demo {
        services.spawn(demo::run_here(listen, key));
    }
    let mut signals = Signals::new()?;
    tokio::select! {
        _ = &mut serving => {}
        () = signals.next() => {}
    }
    tracing::info!("stopping");
    stop.cancel();
    let mode = if args.end_sandboxes {
        StopMode::EndSandboxes
    } else {
        StopMode::KeepSandboxes
    };
    if mode == StopMode::EndSandboxes {
        // Streams of sandboxes that are about to end would only delay it.
        tokio::select! {
            () = async { node.stop(mode).await } => {}
            () = signals.next() => {}
        }
    }
    tokio::select! {
        _ = async { tokio::join!(&mut serving, proxy.drain(DRAIN)) } => {}
        () = signals.next() => tracing::warn!("cutting requests in flight"),
    }
    if mode == StopMode::KeepSandboxes {
        node.stop(mode).await;
    }
    control.stop(STOP).await;
    services.stop(STOP).await;
    Ok(())
}

/// Serves counters until the tasks are stopped.
fn serve_meters(listener: TcpListener, control: Arc<Control>, tasks: &Tasks) {
    let stop = tasks.stop_token().clone();
    tasks.spawn(async move {
        let stopped = async move { stop.cancelled().await };
        let serving = axum::serve(listener, warren_api::meters_router(control));
        if let Err(error) = serving.with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "counters are not served any more");
        }
    });
}

async fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(listen).await.with_context(|| {
        format!(
            "listen on {listen}\nhint: find who uses the port with `ss -ltnp sport = :{}`, or choose another with --listen",
            listen.port()
        )
    })
}

/// The domain that SDKs build sandbox host names from. `*.localhost` is loopback.
fn default_domain(listen: SocketAddr) -> String {
    let host = match listen.ip() {
        IpAddr::V4(ip) if ip.is_loopback() || ip.is_unspecified() => "localhost".to_owned(),
        IpAddr::V6(ip) if ip.is_loopback() || ip.is_unspecified() => "localhost".to_owned(),
        ip => format!("{}.nip.io", ip.to_string().replace(':', "-")),
    };
    format!("{host}:{}", listen.port())
}

/// Makes the base template if it is not there.
async fn prepare_base(
    layers_dir: &Path,
    mirror: Option<&str>,
) -> anyhow::Result<(LayerStore, String)> {
    let layers = LayerStore::open(layers_dir)?;
    let mut recipe = base::Recipe::default();
    if let Some(mirror) = mirror {
        mirror.clone_into(&mut recipe.mirror);
    }
    let building = layers.clone();
    let made = tokio::task::spawn_blocking(move || {
        base::ensure(&building, &recipe, |progress| match progress {
            base::Progress::Started => {
                say(
                    "Making the base template from Debian packages. This takes about a minute, once.",
                );
            }
            base::Progress::Line(line) if line.starts_with("I: ") => say(&format!("  {line}")),
            base::Progress::Line(_) => {}
            base::Progress::Finished => say("The base template is ready."),
        })
    });
    let digest = made.await.context("make the base template")??;
    Ok((layers, digest))
}

fn node_config(
    args: &Up,
    data: &DataDir,
    layers_dirs: Vec<PathBuf>,
    programs: guest::Programs,
    volumes: Arc<Volumes>,
) -> NodeConfig {
    NodeConfig {
        data_dir: data.path().to_owned(),
        layers_dirs,
        agent: programs.agent,
        programs: Some(programs.layer),
        events_address: format!("http://{SERVICE_ADDRESS}"),
        sample_every: SAMPLE_EVERY,
        log_retention: args.history.logs().age,
        log_bytes: args.history.logs().bytes,
        volumes,
        warm: WarmConfig {
            floor: args.warm,
            ceiling: args.warm.max(WarmConfig::default().ceiling),
            capture_from: WarmConfig::default()
                .capture_from
                .filter(|_| !args.no_ready_captures),
            ..WarmConfig::default()
        },
        pause: PauseConfig {
            memory_after: Duration::from_secs(args.pause_to_disk_secs),
            ..PauseConfig::default()
        },
    }
}

fn base_spec(args: &Up, layer: String) -> BuildSpec {
    BuildSpec {
        alias: "base".to_owned(),
        public: true,
        layers: vec![layer],
        env: std::collections::BTreeMap::new(),
        default_user: "user".to_owned(),
        default_workdir: None,
        start: None,
        resources: Resources {
            cpu_count: args.base_cpus,
            memory_mib: args.base_memory_mib,
            disk_mib: args.base_disk_mib,
            ..Resources::default()
        },
        warm: true,
    }
}

/// Who workload tokens are from: the address that their verifiers reach.
fn issuer(args: &Up, domain: &str) -> String {
    match &args.public_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("https://api.{domain}"),
    }
}

/// Serves names, the events service and the way out to sandboxes. Returns what resolves
/// names.
fn serve_guests(
    args: &Up,
    runtime: &Arc<NsRuntime>,
    node: &Arc<Node<NsRuntime>>,
    vault: ControlVault,
    tasks: &Tasks,
) -> anyhow::Result<Resolver> {
    let resolver = egress::serve(args, runtime, node, vault, tasks)?;
    let events = runtime
        .bind_tcp(EVENTS_PORT)
        .context("serve events to sandboxes")?;
    let (counters, runtime, node) = (Arc::clone(runtime), Arc::clone(runtime), Arc::clone(node));
    let service = Events::new(
        move |address| node.in_slot(runtime.slot_of(address)?),
        move |address| counters.oom_kills_at(address),
    );
    tasks.spawn(service.serve(TcpListener::from_std(events)?, tasks.clone()));
    Ok(resolver)
}

/// Makes sure that the key file holds a key that is valid, and returns the key.
async fn keep_key(
    args: &Up,
    data: &DataDir,
    control: &Control,
    made: Option<Secret>,
) -> anyhow::Result<Secret> {
    let own = data.path().join("api-key");
    let mut key = made;
    for path in [Some(&own), args.api_key_file.as_ref()]
        .into_iter()
        .flatten()
    {
        let kept = std::fs::read_to_string(path)
            .ok()
            .map(|text| text.trim().to_owned());
        let kept = match kept {
            Some(text) if control.authenticate_key(&text).await.is_ok() => Some(Secret::new(text)),
            _ => None,
        };
        match (kept, &key) {
            (Some(kept), None) => key = Some(kept),
            (Some(_), Some(_)) => {}
            (None, Some(key)) => write_secret(path, key.expose())?,
            (None, None) => {
                let team = control.default_team().await?;
                let new = NewKey::named("default");
                let fresh = control.key_create(&By::SYSTEM, team.id, new).await?.clear;
                write_secret(path, fresh.expose())?;
                key = Some(fresh);
            }
        }
    }
    key.context("no API key")
}

/// The address at which clients on this machine reach a server that listens there.
pub(crate) fn local_url(listen: SocketAddr) -> String {
    let host = if listen.ip().is_unspecified() {
        "localhost".to_owned()
    } else if listen.is_ipv6() {
        format!("[{}]", listen.ip())
    } else {
        listen.ip().to_string()
    };
    format!("http://{host}:{}", listen.port())
}

/// Tells how to use the server. The key is told at the first start only: what is printed
/// may be kept by others. Where the log goes to standard output, nothing else does.
fn announce(
    listen: SocketAddr,
    key: Option<&Secret>,
    data_dir: &Path,
    domain: Option<&String>,
    is_json: bool,
) {
    let url = local_url(listen);
    let key = key.map_or_else(
        || format!("$(warren key show-first --data-dir {})", data_dir.display()),
        |key| key.expose().to_owned(),
    );
    let mut out: Box<dyn Write> = match is_json {
        true => Box::new(std::io::stderr()),
        false => Box::new(std::io::stdout()),
    };
    let shown = format!(
        "Warren is ready at {url}\n\n  export E2B_API_URL={url}\n  export E2B_SANDBOX_URL={url}\n  export E2B_VOLUME_API_URL={url}\n  export E2B_API_KEY={key}\n"
    );
    // Nobody to read it is no failure.
    writeln!(out, "{shown}").ok();
    if let Some(domain) = domain {
        let names = format!("Or by name, with E2B_DOMAIN={domain} alone; see `warren trust`.\n");
        writeln!(out, "{names}").ok();
    }
}

/// Which edge a request on the one port belongs to.
#[derive(Debug, Clone)]
struct Edge {
    proxy: Proxy,
    api: TowerToHyperService<axum::Router>,
}

impl hyper::service::Service<Request<Incoming>> for Edge {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if is_sandbox_traffic(&request) {
            let proxy = self.proxy.clone();
            Box::pin(async move { Ok(proxy.serve_request(request).await.map(Body::new)) })
        } else {
            let parent = telemetry::remote_parent(request.headers());
            let (request, unread) = watch(request);
            let answer = hyper::service::Service::call(&self.api, request);
            let whole = async move {
                let mut answer = answer.await?;
                unread.finish(&mut answer).await;
                Ok(answer)
            };
            telemetry::below(parent, whole)
        }
    }
}

/// The signals that stop the server.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
