//! Percentiles of measured durations.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is told of a series of durations, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) n: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

/// Sums up a series; `None` if it is empty.
pub(crate) fn summary(mut series: Vec<Duration>) -> Option<Summary> {
    series.sort();
    let at = |percent: usize| -> Option<f64> {
        let rank = (series.len() * percent).div_ceil(100).max(1);
        series.get(rank - 1).map(|d| d.as_secs_f64() * 1000.0)
    };
    Some(Summary {
        n: series.len(),
        p50_ms: at(50)?,
        p99_ms: at(99)?,
        max_ms: series.last()?.as_secs_f64() * 1000.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_series() {
        let series = (1..=100).map(Duration::from_millis).collect();
        let summary = summary(series).unwrap();
        assert_eq!(
            (summary.p50_ms, summary.p99_ms, summary.max_ms),
            (50.0, 99.0, 100.0)
        );
        assert!(super::summary(Vec::new()).is_none());
    }
}
