//! The command-line grammar. Every flag of the server can be set by an environment
//! variable of the same name; flags win.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use warren_template::interpreter::Variant;
use warren_template::{BadMirror, Mirror};

pub(crate) mod address;
pub(crate) mod auth;
pub(crate) mod bundle;
pub(crate) mod connection;
pub(crate) mod history;
pub(crate) mod limits;
pub(crate) mod operator;
pub(crate) mod place;
pub(crate) mod sandbox;
pub(crate) mod ssh;
pub(crate) mod template;
pub(crate) mod volume;

use crate::builtin;
use connection::Connection;
use place::DataDir;

/// A self-hosted sandbox cloud for AI agents, compatible with the E2B SDKs.
#[derive(Debug, Parser)]
#[command(name = "warren", version, propagate_version = true)]
pub(crate) struct Cli {
    /// Print results as JSON, for programs.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the server in the foreground.
    Up(Box<Up>),
    /// Check this machine and say how to fix what is missing.
    Doctor(Doctor),
    /// Have this machine trust the server's own certificates and find its names.
    Trust(address::Trust),
    /// Drive a sandbox through a running server and show the latency of each step.
    Demo(Connection),
    /// Serve tools for AI agents by the Model Context Protocol.
    Mcp(Mcp),
    /// Sign in and out, and choose a project.
    #[command(arg_required_else_help = true)]
    Auth(auth::Auth),
    /// Create, list, enter and end sandboxes.
    #[command(alias = "sbx", alias = "sandboxes", arg_required_else_help = true)]
    Sandbox(sandbox::Sandbox),
    /// Build, list, publish and delete templates.
    #[command(alias = "tpl", alias = "templates", arg_required_else_help = true)]
    Template(template::Template),
    /// Make, list, change and delete teams of a server that you operate.
    #[command(alias = "teams", arg_required_else_help = true)]
    Team(operator::Team),
    /// Add people and put them in teams.
    #[command(alias = "users", arg_required_else_help = true)]
    User(operator::User),
    /// Make, list, rename and revoke API keys.
    #[command(alias = "keys", arg_required_else_help = true)]
    Key(operator::Key),
    /// Show who did what.
    Audit(operator::Audit),
    /// Say why a sandbox ended, a build failed or a request was refused.
    Explain(operator::Explain),
    /// Copy the database, the keys, templates and volumes of a server, also while it runs.
    Backup(operator::Backup),
    /// Put a backup into an empty data directory.
    Restore(operator::Restore),
    /// Show what team and key may have and what of it is used; as the administrator, set it.
    Limits(limits::LimitsCommand),
    /// Measure how fast a server creates sandboxes, runs commands in them and ends them.
    Bench(Bench),
    /// Print a script that completes commands and flags in a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command.
    Man {
        /// Directory to write them to; made if absent.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Connect to a sandbox with `ssh`, without keys or host keys to set up.
    Ssh(Box<ssh::Ssh>),
    /// Add, list and remove the public keys that open the team's sandboxes over SSH.
    #[command(name = "ssh-key", alias = "ssh-keys", arg_required_else_help = true)]
    SshKey(ssh::SshKey),
    /// Pack the server and its templates into one file, or install such a file.
    #[command(arg_required_else_help = true)]
    Bundle(bundle::Bundle),
    /// End all sandboxes of this machine's server and remove everything that it kept.
    Uninstall(bundle::Uninstall),
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Template of the sandboxes.
    #[arg(long, default_value = "base", value_name = "NAME")]
    pub(crate) template: String,

    /// Sandboxes to make, one after another.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) count: u32,

    /// Sandboxes to make at once, afterwards; 0 for none.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1000))]
    pub(crate) burst: u32,

    #[command(flatten)]
    pub(crate) connection: Connection,
}

fn registry_mirror(text: &str) -> Result<(String, Mirror), String> {
    let (host, url) = text.split_once('=').ok_or("expected HOST=URL")?;
    let mirror = url.parse().map_err(|error: BadMirror| error.to_string())?;
    Ok((host.to_owned(), mirror))
}

#[derive(Debug, Args)]
pub(crate) struct Mcp {
    /// Template of sandboxes where a tool's call names none.
    #[arg(long, default_value = "code-interpreter-v1", value_name = "NAME")]
    pub(crate) template: String,

    /// Serve HTTP here, at `/mcp`, instead of standard input and output. Requests bear the
    /// API key, as `Authorization: Bearer KEY`.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) http: Option<SocketAddr>,

    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,

    /// Once ready, run code in a sandbox and show the latency of each step, then go on serving.
    #[arg(long)]
    pub(crate) demo: bool,

    /// Address of the one port for API and sandbox traffic.
    #[arg(
        long,
        env = "WARREN_LISTEN",
        default_value = "127.0.0.1:3000",
        value_name = "ADDR:PORT"
    )]
    pub(crate) listen: SocketAddr,

    /// Write an API key to this file (mode 0600); an existing valid key in it is kept.
    #[arg(long, env = "WARREN_API_KEY_FILE", value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,

    /// Directory of unpacked template layers. Layers are immutable and named by content,
    /// so several servers may share it [default: layers/ in the data directory].
    #[arg(long, env = "WARREN_LAYERS_DIR", value_name = "DIR")]
    pub(crate) layers_dir: Option<PathBuf>,

    /// Domain under which sandboxes are reached as PORT-ID.DOMAIN, with a port unless it
    /// is 443 [default: localhost and the port listened on].
    #[arg(long, env = "WARREN_DOMAIN", value_name = "DOMAIN")]
    pub(crate) domain: Option<String>,

    #[command(flatten)]
    pub(crate) address: address::Address,

    #[command(flatten)]
    pub(crate) ssh: ssh::Serve,

    /// URL that clients reach the API at, for links to it; needed only behind a proxy that
    /// hides it [default: the host that a request names].
    #[arg(long, env = "WARREN_PUBLIC_URL", value_name = "URL")]
    pub(crate) public_url: Option<String>,

    /// Debian mirror that the base template is made from.
    #[arg(long, env = "WARREN_DEBIAN_MIRROR", value_name = "URL")]
    pub(crate) debian_mirror: Option<String>,

    /// Booted sandboxes kept waiting for a create; more follow demand. 0 turns them off.
    #[arg(long, env = "WARREN_WARM", default_value_t = 8, value_name = "N")]
    pub(crate) warm: usize,

    /// Run the start command of a template anew for each of its sandboxes, instead of once,
    /// restoring what it has set up for the others.
    #[arg(long, env = "WARREN_NO_READY_CAPTURES")]
    pub(crate) no_ready_captures: bool,

    /// Prepared slots (namespaces, network, cgroups, disk) kept waiting for a boot.
    #[arg(long, env = "WARREN_SLOTS", default_value_t = 16, value_name = "N")]
    pub(crate) slots: usize,

    /// Join layers by path even where the kernel takes descriptors. For tests.
    #[arg(long, env = "WARREN_OVERLAY_BY_PATH", hide = true)]
    pub(crate) overlay_by_path: bool,

    /// Highest number of sandboxes of a team at a time.
    #[arg(
        long,
        env = "WARREN_MAX_SANDBOXES",
        default_value_t = 1000,
        value_name = "N"
    )]
    pub(crate) max_sandboxes: u32,

    /// Longest life of a sandbox in hours.
    #[arg(
        long,
        env = "WARREN_MAX_HOURS",
        default_value_t = 24,
        value_name = "HOURS"
    )]
    pub(crate) max_hours: u32,

    /// Highest number of template builds of a team that wait or run at a time.
    #[arg(
        long,
        env = "WARREN_MAX_BUILDS",
        default_value_t = 20,
        value_name = "N"
    )]
    pub(crate) max_builds: u32,

    /// Most CPUs that a template may ask for.
    #[arg(long, env = "WARREN_MAX_CPUS", default_value_t = 8, value_name = "N")]
    pub(crate) max_cpus: u32,

    /// Most memory that a template may ask for, in MiB.
    #[arg(
        long,
        env = "WARREN_MAX_MEMORY_MIB",
        default_value_t = 8096,
        value_name = "MIB"
    )]
    pub(crate) max_memory_mib: u32,

    /// CPUs of a sandbox of the base template.
    #[arg(long, env = "WARREN_BASE_CPUS", default_value_t = 2, value_name = "N")]
    pub(crate) base_cpus: u32,

    /// Memory of a sandbox of the base template in MiB.
    #[arg(
        long,
        env = "WARREN_BASE_MEMORY_MIB",
        default_value_t = 1024,
        value_name = "MIB"
    )]
    pub(crate) base_memory_mib: u32,

    /// Disk of a sandbox of the base template in MiB.
    #[arg(
        long,
        env = "WARREN_BASE_DISK_MIB",
        default_value_t = 10_240,
        value_name = "MIB"
    )]
    pub(crate) base_disk_mib: u32,

    /// Templates to have beside `base`: `code-interpreter-v1`, `code-interpreter-lean`,
    /// `desktop`, `node`, `python`, `golang`, `ubuntu`, `httpbin`, `mcp-gateway`, or `none`.
    /// Those that are not there yet are made in the background from packages.
    #[arg(
        long,
        env = "WARREN_TEMPLATES",
        default_value = "code-interpreter-v1",
        value_name = "NAME",
        value_delimiter = ',',
        value_parser = templates()
    )]
    pub(crate) templates: Vec<String>,

    /// Be ready only when all templates are.
    #[arg(long, env = "WARREN_WAIT_TEMPLATES")]
    pub(crate) wait_templates: bool,

    /// Memory of a sandbox of the code interpreter in MiB.
    #[arg(
        long,
        env = "WARREN_INTERPRETER_MEMORY_MIB",
        default_value_t = 1024,
        value_name = "MIB"
    )]
    pub(crate) interpreter_memory_mib: u32,

    #[command(flatten)]
    pub(crate) volume: volume::Volume,

    /// Let webhooks lead to private addresses and to this host. Whoever has an API key can
    /// then have requests sent into the network that the server is in.
    #[arg(long, env = "WARREN_WEBHOOK_PRIVATE_ADDRESSES")]
    pub(crate) webhook_private_addresses: bool,

    /// Let sandboxes reach this private range, which is blocked by default. Repeatable.
    #[arg(
        long,
        env = "WARREN_ALLOW_EGRESS",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub(crate) allow_egress: Vec<String>,

    /// File with the key that seals the values of secrets, 64 hexadecimal digits; made if it
    /// is missing. The variable WARREN_SECRETS_KEY has precedence and holds the key itself
    /// [default: values.key in the data directory].
    #[arg(long, env = "WARREN_SECRETS_KEY_FILE", value_name = "FILE")]
    pub(crate) secrets_key_file: Option<PathBuf>,

    /// File with certificates in PEM that are trusted beside the host's when header rules look
    /// into TLS, such as those of a private authority.
    #[arg(long, env = "WARREN_EGRESS_CA_FILE", value_name = "FILE")]
    pub(crate) egress_ca_file: Option<PathBuf>,

    /// Name server to ask for sandboxes. Repeatable [default: those of /etc/resolv.conf].
    #[arg(
        long,
        env = "WARREN_RESOLVER",
        value_name = "ADDR:PORT",
        value_delimiter = ','
    )]
    pub(crate) resolver: Vec<SocketAddr>,

    /// Pull the images of one registry from another. `docker.io` stands for images without
    /// a registry in their name. Repeatable.
    #[arg(
        long,
        env = "WARREN_REGISTRY_MIRROR",
        value_name = "HOST=URL",
        value_parser = registry_mirror,
        value_delimiter = ','
    )]
    pub(crate) registry_mirror: Vec<(String, Mirror)>,

    /// Speak to this registry without TLS. Repeatable.
    #[arg(
        long,
        env = "WARREN_INSECURE_REGISTRY",
        value_name = "HOST[:PORT]",
        value_delimiter = ','
    )]
    pub(crate) insecure_registry: Vec<String>,

    /// Where tokens for AWS's registries come from, instead of the address of their region.
    #[arg(long, env = "AWS_ENDPOINT_URL_ECR", value_name = "URL")]
    pub(crate) ecr_endpoint: Option<String>,

    /// Directory of images that builds may start from as `oci:NAME`: OCI image layouts, each
    /// a directory or a tar archive.
    #[arg(long, env = "WARREN_IMAGES_DIR", value_name = "DIR")]
    pub(crate) images_dir: Option<PathBuf>,

    /// How much the layers may take that builds have left in the cache and no template
    /// uses, in MiB; beyond it the longest unused go.
    #[arg(
        long,
        env = "WARREN_BUILD_CACHE_MIB",
        default_value_t = 32_768,
        value_name = "MIB"
    )]
    pub(crate) build_cache_mib: u32,

    /// Keep variables of `ENV` steps and images from sandboxes: they are then a matter of the
    /// build and of start commands only, as in E2B's own cloud.
    #[arg(long, env = "WARREN_NO_TEMPLATE_ENV")]
    pub(crate) no_template_env: bool,

    /// Do not fetch CRIU, which stores the memory of sandboxes, from newer Debian packages
    /// where the machine has none of 4.2 or later. It is then declared unavailable.
    #[arg(long, env = "WARREN_NO_PREPARE_TOOLS")]
    pub(crate) no_prepare_tools: bool,

    /// Seconds after which the memory of a paused sandbox is moved to the disk, where the
    /// machine can do that; under memory pressure it is moved sooner.
    #[arg(
        long,
        env = "WARREN_PAUSE_TO_DISK_SECS",
        default_value_t = 300,
        value_name = "SECONDS"
    )]
    pub(crate) pause_to_disk_secs: u64,

    /// End all running sandboxes when the server stops, instead of leaving them running for
    /// the next start. Paused ones are kept.
    #[arg(long, env = "WARREN_END_SANDBOXES")]
    pub(crate) end_sandboxes: bool,

    #[command(flatten)]
    pub(crate) limits: limits::Limits,

    #[command(flatten)]
    pub(crate) history: history::History,

    #[command(flatten)]
    pub(crate) telemetry: history::Telemetry,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,

    /// Address that the server would listen on.
    #[arg(
        long,
        env = "WARREN_LISTEN",
        default_value = "127.0.0.1:3000",
        value_name = "ADDR:PORT"
    )]
    pub(crate) listen: SocketAddr,

    /// Prepare what can be: CRIU, from newer Debian packages, in the data directory.
    #[arg(long)]
    pub(crate) fix: bool,

    /// Debian mirror that it is made from.
    #[arg(long, env = "WARREN_DEBIAN_MIRROR", value_name = "URL")]
    pub(crate) debian_mirror: Option<String>,
}

/// Names that `--templates` takes.
fn templates() -> Vec<&'static str> {
    let names = Variant::ALL.map(Variant::name).into_iter();
    let built = builtin::ALL.iter().map(|builtin| builtin.name);
    names.chain(built).chain(["none"]).collect()
}
