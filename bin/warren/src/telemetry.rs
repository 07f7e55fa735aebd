//! What the server tells of itself while it works: log lines to people or programs, and by
//! OTLP log lines and spans to a collector.

mod exporter;
mod otlp;
mod parent;

use std::io::IsTerminal;

use anyhow::Context;
use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use tracing::Metadata;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

pub(crate) use self::otlp::Sent;
pub(crate) use self::parent::{below, remote_parent};
use crate::cli::history::Telemetry;

/// Begins to log. Keep what is returned until the end; call it before there is an async
/// runtime, since what sends has threads of its own.
pub(crate) fn init(args: &Telemetry) -> anyhow::Result<Sent> {
    let filter = EnvFilter::try_from_env("WARREN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer();
    let lines = if args.is_json() {
        lines.json().with_writer(std::io::stdout).boxed()
    } else {
        lines
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .boxed()
    };
    let sent = Sent::open(args.otlp_endpoint.as_deref()).context("set up OTLP")?;
    let spans = sent.traces.as_ref().map(|traces| {
        // Events are sent as log lines, which name the span.
        let wanted = filter_fn(|metadata| metadata.is_span() && is_own(metadata));
        tracing_opentelemetry::layer()
            .with_tracer(traces.tracer(otlp::SERVICE))
            .with_threads(false)
            .with_filter(wanted)
    });
    let logs = sent.logs.as_ref().map(|logs| {
        let wanted = filter_fn(is_own);
        OpenTelemetryTracingBridge::new(logs).with_filter(wanted)
    });
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .with(spans)
        .with(logs)
        .init();
    Ok(sent)
}

/// Whether it is told by what does not take part in sending: that would never end.
fn is_own(metadata: &Metadata<'_>) -> bool {
    const SENDING: [&str; 7] = [
        "opentelemetry",
        "hyper",
        "reqwest",
        "h2",
        "rustls",
        "tower",
        "tokio",
    ];
    let crate_name = metadata.target().split("::").next().unwrap_or_default();
    !SENDING.iter().any(|sending| {
        crate_name
            .strip_prefix(sending)
            .is_some_and(is_rest_of_name)
    })
}

fn is_rest_of_name(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('_')
}
