//! Where the server's log lines and spans go: standard error, and by OTLP to a collector.

use std::io::IsTerminal;

use anyhow::Context;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::cli::history::Telemetry;

const SERVICE: &str = "warren";

/// What sends to a collector. Dropping it sends what has gathered.
#[derive(Debug)]
pub(crate) struct Sent {
    traces: SdkTracerProvider,
    logs: SdkLoggerProvider,
}

impl Drop for Sent {
    fn drop(&mut self) {
        // A collector that is gone has missed it; there is nobody left to tell.
        self.traces.shutdown().ok();
        self.logs.shutdown().ok();
    }
}

/// Begins to log. Keep what is returned until the end; call it before there is an async
/// runtime, since what sends has a thread of its own.
pub(crate) fn init(args: &Telemetry) -> anyhow::Result<Option<Sent>> {
    let filter = EnvFilter::try_from_env("WARREN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = if args.is_json() {
        lines.json().boxed()
    } else {
        lines.boxed()
    };
    let sent = match &args.otlp_endpoint {
        Some(endpoint) => Some(sender(endpoint).context("set up OTLP")?),
        None => None,
    };
    let spans = sent
        .as_ref()
        .map(|sent| tracing_opentelemetry::layer().with_tracer(sent.traces.tracer(SERVICE)));
    let logs = sent
        .as_ref()
        .map(|sent| OpenTelemetryTracingBridge::new(&sent.logs));
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .with(spans)
        .with(logs)
        .init();
    Ok(sent)
}

fn sender(endpoint: &str) -> anyhow::Result<Sent> {
    let resource = Resource::builder()
        .with_service_name(SERVICE)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    // The client that sends wants to know who does the cryptography; the first word counts.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let endpoint = endpoint.trim_end_matches('/');
    let traces = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{endpoint}/v1/traces"))
        .build()?;
    let logs = LogExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{endpoint}/v1/logs"))
        .build()?;
    Ok(Sent {
        traces: SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_batch_exporter(traces)
            .build(),
        logs: SdkLoggerProvider::builder()
            .with_resource(resource)
            .with_batch_exporter(logs)
            .build(),
    })
}
