//! A collector, and what is gathered for it. Queues have an end: what comes while they are
//! full is dropped, so that a collector that is slow, wrong or gone costs nothing but that.

use std::env;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use opentelemetry::KeyValue;
use opentelemetry_otlp::{LogExporter, Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use url::Url;

use super::exporter::Told;

/// The service's name, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` say another.
pub(super) const SERVICE: &str = "warren";
/// The only protocol that is spoken, as the variables name it.
const PROTOCOL: &str = "http/protobuf";
/// How long the end of the server waits for each kind to be sent.
const LAST: Duration = Duration::from_secs(2);

/// What is sent to a collector. Dropping it sends what has gathered, if it can.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(super) traces: Option<SdkTracerProvider>,
    pub(super) logs: Option<SdkLoggerProvider>,
}

impl Drop for Sent {
    fn drop(&mut self) {
        // A collector that does not take it has missed it; nobody is left to be told.
        if let Some(traces) = &self.traces {
            traces.shutdown_with_timeout(LAST).ok();
        }
        if let Some(logs) = &self.logs {
            logs.shutdown_with_timeout(LAST).ok();
        }
    }
}

/// One of the two kinds that are sent.
#[derive(Clone, Copy)]
struct Signal {
    /// As it is told to people.
    name: &'static str,
    /// As variables name it.
    variable: &'static str,
    path: &'static str,
}

const TRACES: Signal = Signal {
    name: "spans",
    variable: "TRACES",
    path: "v1/traces",
};
const LOGS: Signal = Signal {
    name: "log lines",
    variable: "LOGS",
    path: "v1/logs",
};

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// A variable of a signal, or of all signals.
fn of_signal(signal: Signal, name: &str) -> Option<String> {
    let own = variable(&format!("OTEL_EXPORTER_OTLP_{}_{name}", signal.variable));
    own.or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
}

/// Where to send a signal: `None` if nowhere, `Some(None)` if the variables say where.
fn destination(flag: Option<&Url>, signal: Signal) -> anyhow::Result<Option<Option<String>>> {
    let exporter = variable(&format!("OTEL_{}_EXPORTER", signal.variable));
    if exporter.is_some_and(|exporter| exporter == "none") {
        return Ok(None);
    }
    if let Some(url) = flag {
        let mut url = url.clone();
        let mut segments = url.path_segments_mut().ok().context("a URL with a path")?;
        segments.pop_if_empty().extend(signal.path.split('/'));
        drop(segments);
        return Ok(Some(Some(url.into())));
    }
    let Some(endpoint) = of_signal(signal, "ENDPOINT") else {
        return Ok(None);
    };
    checked(&endpoint)?;
    let protocol = of_signal(signal, "PROTOCOL");
    if let Some(other) = protocol.filter(|protocol| protocol != PROTOCOL) {
        bail!("OTEL_EXPORTER_OTLP_PROTOCOL: {other} is not spoken, only {PROTOCOL}");
    }
    Ok(Some(None))
}

fn checked(endpoint: &str) -> anyhow::Result<Url> {
    let url: Url = endpoint
        .parse()
        .with_context(|| format!("read the collector's URL '{endpoint}'"))?;
    ensure!(
        matches!(url.scheme(), "http" | "https") && url.has_host(),
        "the collector's URL '{endpoint}' must begin with http:// or https://"
    );
    Ok(url)
}

fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let builder = Resource::builder().with_attribute(version);
    let attributes = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let is_named = variable("OTEL_SERVICE_NAME").is_some() || attributes.contains("service.name=");
    if is_named {
        builder.build()
    } else {
        builder.with_service_name(SERVICE).build()
    }
}

impl Sent {
    /// Gets ready to send, to the collector at this URL or where the usual variables say.
    pub(super) fn open(endpoint: Option<&str>) -> anyhow::Result<Self> {
        let mut sent = Self {
            traces: None,
            logs: None,
        };
        if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(sent);
        }
        let flag = endpoint.map(checked).transpose()?;
        let traces = destination(flag.as_ref(), TRACES)?;
        let logs = destination(flag.as_ref(), LOGS)?;
        if traces.is_some() || logs.is_some() {
            // The client that sends wants to know who does the cryptography; the first word
            // counts.
            rustls::crypto::ring::default_provider()
                .install_default()
                .ok();
        }
        if let Some(url) = traces {
            let mut builder = SpanExporter::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary);
            if let Some(url) = url {
                builder = builder.with_endpoint(url);
            }
            let provider = SdkTracerProvider::builder()
                .with_resource(resource())
                .with_batch_exporter(Told::new(builder.build()?, TRACES.name));
            sent.traces = Some(provider.build());
        }
        if let Some(url) = logs {
            let mut builder = LogExporter::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary);
            if let Some(url) = url {
                builder = builder.with_endpoint(url);
            }
            let provider = SdkLoggerProvider::builder()
                .with_resource(resource())
                .with_batch_exporter(Told::new(builder.build()?, LOGS.name));
            sent.logs = Some(provider.build());
        }
        Ok(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_goes_below_the_collectors_url() {
        for (given, spans) in [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("http://c:4318/", "http://c:4318/v1/traces"),
            ("https://c/otlp", "https://c/otlp/v1/traces"),
            ("https://c/otlp/?a=b", "https://c/otlp/v1/traces?a=b"),
        ] {
            let url = checked(given).unwrap();
            let found = destination(Some(&url), TRACES).unwrap();
            assert_eq!(found, Some(Some(spans.to_owned())));
        }
    }

    #[test]
    fn what_is_no_url_of_a_collector_is_refused() {
        for bad in [
            "",
            "collector",
            "collector:4318",
            "grpc://c:4317",
            "http://",
        ] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }
}
