//! Measures what Warren promises on its hot paths, beside named peers in the same run:
//! `crun` and `runsc` on the same root file system, and a plain static file server.
//!
//! Prints medians, 99th percentiles and ratios. Nothing here asserts a time.
#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

mod builds;
mod peers;
mod report;
mod restore;
mod roles;
mod scenarios;
mod server;
mod stats;
mod warren;

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;

use crate::report::Report;

#[derive(Debug, Parser)]
#[command(about = "Measures Warren's hot paths beside named peers in the same run.")]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    role: Option<roles::Role>,
    /// The server's binary.
    #[arg(long, env = "WARREN_BIN", default_value = "target/release/warren")]
    warren: PathBuf,
    /// Shared directory of template layers.
    #[arg(
        long,
        env = "WARREN_LAYERS_DIR",
        default_value = "/var/cache/warren/layers"
    )]
    layers_dir: PathBuf,
    /// A Python with ipykernel and Jupyter Server, to measure them beside the interpreter.
    #[arg(long, env = "WARREN_BENCH_PYTHON", default_value = "python3")]
    python: PathBuf,
    /// Where the packages of peers are kept that the machine has not installed.
    #[arg(
        long,
        env = "WARREN_PEERS_DIR",
        default_value = "/var/cache/warren/peers"
    )]
    peers_dir: PathBuf,
    /// Only scenarios whose name holds one of these words.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// A tenth of the repetitions, a tenth of the bytes.
    #[arg(long)]
    quick: bool,
    /// Also write the results as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(role) = &args.role {
        return role.play();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut report = Report::new()?;
    runtime.block_on(run(&args, &mut report))?;
    println!("{report}");
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let wanted = |name: &str| {
        args.only.is_empty() || args.only.iter().any(|word| name.contains(word.as_str()))
    };
    let scale = if args.quick { 10 } else { 1 };
    let start = |extra: &'static [&'static str]| {
        server::Server::start(&args.warren, &args.layers_dir, extra)
    };

    if wanted("create-warm") || wanted("burst") || wanted("command") || wanted("transfer") {
        // Memory for the transferred file to stay cached, as it does beside the peer.
        let server = start(&["--warm", "32", "--slots", "64", "--base-memory-mib", "4096"]).await?;
        if wanted("create-warm") {
            scenarios::create::warm(&server, 200 / scale, report).await?;
        }
        if wanted("burst") {
            scenarios::create::burst(&server, 50, 10 / scale.min(3), report).await?;
        }
        if wanted("command") {
            scenarios::command::round_trip(&server, 300 / scale, report).await?;
        }
        if wanted("transfer") {
            scenarios::transfer::run(&server, (1 << 30) / scale as u64, report).await?;
        }
        server.stop().await?;
    }
    if wanted("create-cold") {
        let server = start(&["--warm", "0", "--slots", "64"]).await?;
        scenarios::create::cold(&server, 200 / scale, report).await?;
        server.stop().await?;
    }
    if wanted("churn") {
        let server = start(&["--warm", "16", "--slots", "64"]).await?;
        scenarios::create::churn(&server, 10, report).await?;
        server.stop().await?;
    }
    if wanted("idle") {
        let server = start(&["--warm", "0", "--slots", "0"]).await?;
        scenarios::idle::memory(&server, 200 / scale, report).await?;
        server.stop().await?;
    }
    if wanted("proxy") {
        let server = start(&["--warm", "1", "--slots", "4"]).await?;
        scenarios::proxy::run(&server, &args.peers_dir, scale, report).await?;
        server.stop().await?;
    }
    if wanted("egress") {
        let internet = scenarios::egress::Internet::start().await?;
        let authority = internet.authority();
        let resolver = ["--resolver", scenarios::egress::RESOLVER];
        let trust = ["--egress-ca-file", &authority];
        let extra = [&resolver[..], &trust, &["--warm", "1", "--slots", "4"]].concat();
        let server = server::Server::start(&args.warren, &args.layers_dir, &extra).await?;
        scenarios::egress::run(&server, &internet, 1000 / scale, report).await?;
        server.stop().await?;
        internet.stop().await?;
    }
    if wanted("interpreter") {
        interpreter(args, scale, report).await?;
    }
    if wanted("pause") || wanted("fork") || wanted("snapshot") {
        let server = start(&["--warm", "4", "--slots", "32"]).await?;
        if wanted("pause") {
            scenarios::lifecycle::in_memory(&server, 200 / scale, report).await?;
        }
        if wanted("fork") {
            scenarios::lifecycle::fork(&server, 10 / scale.min(3), report).await?;
        }
        if wanted("snapshot") {
            scenarios::lifecycle::snapshot(&server, 20 / scale.min(4), report).await?;
        }
        server.stop().await?;
    }
    if wanted("disk") {
        let server = start(&["--warm", "2", "--slots", "8", "--pause-to-disk-secs", "0"]).await?;
        let n = 20 / scale.min(4);
        scenarios::lifecycle::from_disk(&server, n, report).await?;
        server.stop().await?;
        let server = start(&[
            "--templates",
            scenarios::interpreter::TEMPLATE,
            "--wait-templates",
            "--warm",
            "2",
            "--pause-to-disk-secs",
            "0",
        ])
        .await?;
        scenarios::lifecycle::kernel_from_disk(&server, n, report).await?;
        server.stop().await?;
        restore::bare(n, report)?;
        restore::gvisor(&args.layers_dir, n, report)?;
    }
    if wanted("templates") {
        let server = start(&["--warm", "0", "--slots", "8"]).await?;
        scenarios::templates::rebuild(&server, 50 / scale, report).await?;
        scenarios::templates::layers(&server, 10 / scale.min(5), report).await?;
        server.stop().await?;
    }
    if wanted("templates-pull") {
        let paths = (args.warren.as_path(), args.layers_dir.as_path());
        let rounds = (if args.quick { 1 } else { 3 }, args.quick);
        scenarios::pull::beside_peers(paths, &args.peers_dir, rounds, report).await?;
    }
    for peer in ["crun", "runsc"] {
        if wanted(&format!("peer-{peer}")) {
            peers::measure_here(peer, &args.layers_dir, args.quick, report)?;
        }
    }
    Ok(())
}

async fn interpreter(args: &Args, scale: usize, report: &mut Report) -> anyhow::Result<()> {
    let template = ["--templates", scenarios::interpreter::TEMPLATE];
    let start = async |warm: &str| {
        let extra = [&template[..], &["--wait-templates", "--warm", warm]].concat();
        server::Server::start(&args.warren, &args.layers_dir, &extra).await
    };
    let server = start("16").await?;
    scenarios::interpreter::warm(&server, scale, report).await?;
    server.stop().await?;
    let rounds = 5 / scale.min(5);
    // Two wait: started templates keep a quarter.
    let server = start("8").await?;
    scenarios::interpreter::burst(&server, 2, rounds, report).await?;
    server.stop().await?;
    let server = start("0").await?;
    scenarios::interpreter::burst(&server, 0, rounds, report).await?;
    scenarios::interpreter::memory(&server, 20 / scale.min(4), report).await?;
    server.stop().await?;
    scenarios::interpreter::peers(&args.python, scale, report).await
}
