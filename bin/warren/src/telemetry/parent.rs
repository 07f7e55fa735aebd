//! The span that a client's request is a part of.

use std::pin::Pin;

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::context::FutureExt;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// The context that the header `traceparent` of a request names, if it has a good one.
pub(crate) fn remote_parent(headers: &HeaderMap) -> Option<Context> {
    if !headers.contains_key("traceparent") {
        return None;
    }
    let context =
        TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
    let is_good = context.span().span_context().is_valid();
    is_good.then_some(context)
}

/// Does work below the span that `parent` names, if there is one.
pub(crate) fn below<F>(
    parent: Option<Context>,
    work: F,
) -> Pin<Box<dyn Future<Output = F::Output> + Send>>
where
    F: Future + Send + 'static,
{
    match parent {
        Some(parent) => Box::pin(work.with_context(parent)),
        None => Box::pin(work),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn parent(value: &'static str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", HeaderValue::from_static(value));
        let context = remote_parent(&headers)?;
        Some(context.span().span_context().trace_id().to_string())
    }

    #[test]
    fn good_headers_name_a_trace_and_others_are_passed_over() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(parent(good).as_deref(), Some(&good[3..35]));
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "zz-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(parent(bad), None, "{bad}");
        }
        assert!(remote_parent(&HeaderMap::new()).is_none());
    }
}
