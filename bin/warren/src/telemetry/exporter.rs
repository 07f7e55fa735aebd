//! Exporters that tell in the log when the collector does not take what is sent, and when it
//! does again: once each, since it is tried all the time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

/// An exporter whose trouble is told.
#[derive(Debug)]
pub(super) struct Told<E> {
    exporter: E,
    what: &'static str,
    is_failing: AtomicBool,
}

impl<E> Told<E> {
    pub(super) fn new(exporter: E, what: &'static str) -> Self {
        Self {
            exporter,
            what,
            is_failing: AtomicBool::new(false),
        }
    }

    fn tell(&self, result: &OTelSdkResult) {
        let was_failing = self.is_failing.swap(result.is_err(), Ordering::Relaxed);
        match result {
            Err(error) if !was_failing => tracing::warn!(
                what = self.what, %error, "the OTLP collector does not take what is sent"
            ),
            Ok(()) if was_failing => {
                tracing::info!(
                    what = self.what,
                    "the OTLP collector takes what is sent again"
                );
            }
            _ => {}
        }
    }
}

impl<E: SpanExporter> SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        self.tell(&result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: LogExporter> LogExporter for Told<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        self.tell(&result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::{Span, Tracer, TracerProvider};
    use opentelemetry::{KeyValue, StringValue, Value};
    use opentelemetry_sdk::error::OTelSdkError;
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    /// Spans that a processor holds at most: its queue, and what is being sent.
    const HELD: usize = 2048 + 512;

    /// Takes a batch and hangs until it is let go.
    #[derive(Debug)]
    struct Hanging {
        began: Sender<()>,
        go: Mutex<Receiver<()>>,
    }

    impl SpanExporter for Hanging {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.began.send(()).ok();
            self.go.lock().unwrap().recv().ok();
            drop(batch);
            Err(OTelSdkError::InternalFailure("it hangs".to_owned()))
        }
    }

    #[test]
    fn a_collector_that_hangs_holds_no_more_than_its_queue_and_blocks_nobody() {
        let ((began, beginning), (let_go, go)) = (channel(), channel());
        let hanging = Hanging {
            began,
            go: Mutex::new(go),
        };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(Told::new(hanging, "spans"))
            .build();
        let tracer = provider.tracer("test");
        let held: Arc<str> = "held by each span".into();
        let span = || {
            let mut span = tracer.start("span");
            let value = Value::String(StringValue::from(Arc::clone(&held)));
            span.set_attribute(KeyValue::new("held", value));
            span.end();
        };
        (0..HELD).for_each(|_| span());
        beginning.recv().unwrap();
        (0..4 * HELD).for_each(|_| span());
        let count = Arc::strong_count(&held) - 1;
        assert!((1..=HELD).contains(&count), "{count}");
        drop(let_go);
        provider.shutdown().ok();
        drop((tracer, provider));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn trouble_is_told_when_it_begins_and_when_it_ends() {
        let told = Told::new((), "spans");
        let bad = || Err(OTelSdkError::InternalFailure(String::new()));
        let failing = |result: OTelSdkResult| {
            told.tell(&result);
            told.is_failing.load(Ordering::Relaxed)
        };
        assert!(!failing(Ok(())));
        assert!(failing(bad()) && failing(bad()));
        assert!(!failing(Ok(())));
    }
}
