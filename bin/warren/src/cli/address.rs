//! Flags for names and certificates.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use super::place::DataDir;

/// The directory of Let's Encrypt.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Where the server's certificates are from. The one port takes plain and TLS connections.
#[derive(Debug, Args)]
#[command(next_help_heading = "Names and certificates")]
pub(crate) struct Address {
    /// Take no TLS connections.
    #[arg(long, env = "WARREN_NO_TLS", conflicts_with_all = ["tls_cert", "acme"])]
    pub(crate) no_tls: bool,

    /// Certificate chain in PEM for the domain and its wildcard, read again when it changes
    /// [default: certificates of a private authority; see `warren trust`].
    #[arg(
        long,
        env = "WARREN_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Its private key in PEM.
    #[arg(
        long,
        env = "WARREN_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub(crate) tls_key: Option<PathBuf>,

    /// Get certificates for `--domain` from an ACME service, and accept its terms. Proven by
    /// DNS-01 in the zone that `--dns-listen` serves unless another way is given.
    #[arg(
        long,
        env = "WARREN_ACME",
        requires = "domain",
        conflicts_with = "tls_cert"
    )]
    pub(crate) acme: bool,

    /// Directory of the ACME service.
    #[arg(long, env = "WARREN_ACME_DIRECTORY", value_name = "URL", default_value = LETS_ENCRYPT)]
    pub(crate) acme_directory: String,

    /// Address for notices of the ACME service.
    #[arg(long, env = "WARREN_ACME_EMAIL", value_name = "ADDRESS")]
    pub(crate) acme_email: Option<String>,

    /// Certificates in PEM to trust the ACME service by, instead of the system's.
    #[arg(long, env = "WARREN_ACME_ROOT", value_name = "FILE")]
    pub(crate) acme_root: Option<PathBuf>,

    /// Prove names by DNS-01 with this program, run as `PROGRAM present|cleanup NAME VALUE`;
    /// it returns once everybody sees the TXT record.
    #[arg(
        long,
        env = "WARREN_ACME_DNS_HOOK",
        value_name = "PROGRAM",
        requires = "acme"
    )]
    pub(crate) acme_dns_hook: Option<PathBuf>,

    /// Prove names by TLS-ALPN-01 on port 443. Gives no certificate for sandboxes' names.
    #[arg(
        long,
        env = "WARREN_ACME_TLS_ALPN",
        requires = "acme",
        conflicts_with = "acme_dns_hook"
    )]
    pub(crate) acme_tls_alpn: bool,

    /// Prove names by HTTP-01 here; the service asks on port 80. Everything else that is asked
    /// for there is sent on to HTTPS. Gives no certificate for sandboxes' names.
    #[arg(
        long,
        env = "WARREN_ACME_HTTP_LISTEN",
        value_name = "ADDR:PORT",
        requires = "acme",
        conflicts_with_all = ["acme_dns_hook", "acme_tls_alpn"]
    )]
    pub(crate) acme_http_listen: Option<SocketAddr>,

    /// Answer DNS for the domain and all names below it here.
    #[arg(long, env = "WARREN_DNS_LISTEN", value_name = "ADDR:PORT")]
    pub(crate) dns_listen: Option<SocketAddr>,

    /// Addresses to answer with [default: the address listened on]. Repeatable.
    #[arg(
        long,
        env = "WARREN_DNS_ADDRESS",
        value_name = "IP",
        value_delimiter = ',',
        requires = "dns_listen"
    )]
    pub(crate) dns_address: Vec<IpAddr>,
}

/// Has this machine trust the certificates of a server on it.
#[derive(Debug, Args)]
pub(crate) struct Trust {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,

    /// Take the trust back.
    #[arg(long)]
    pub(crate) remove: bool,

    /// Only say what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
}
