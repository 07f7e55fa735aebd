//! Token buckets by team and route.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use warren_types::TeamId;

use crate::error::ApiError;

static LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
static REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
static RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Buckets kept before full ones, which say nothing, are dropped.
const MANY_BUCKETS: usize = 10_000;

/// How often a team may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Calls at once.
    pub burst: u32,
    /// Calls that come back in each [`period`](Self::period).
    pub tokens: u32,
    /// See [`tokens`](Self::tokens).
    pub period: Duration,
}

impl RateLimit {
    fn per_second(self) -> f64 {
        f64::from(self.tokens.max(1)) / self.period.as_secs_f64().max(0.001)
    }
}

/// What is left of a team's calls to a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateState {
    limit: u32,
    remaining: u32,
    /// Seconds until all calls are back.
    reset_s: u64,
}

impl RateState {
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        headers.insert(LIMIT.clone(), HeaderValue::from(self.limit));
        headers.insert(REMAINING.clone(), HeaderValue::from(self.remaining));
        headers.insert(RESET.clone(), HeaderValue::from(self.reset_s));
    }
}

/// A call beyond the limit.
#[derive(Debug)]
pub(crate) struct RateRefused {
    state: RateState,
    retry_after_s: u64,
}

impl RateRefused {
    pub(crate) fn into_response(self) -> axum::response::Response {
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "Rate limit exceeded")
            .retry_after(self.retry_after_s);
        let mut response = axum::response::IntoResponse::into_response(error);
        self.state.write(response.headers_mut());
        response
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn refilled(self, limit: RateLimit, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.tokens + passed * limit.per_second()).min(f64::from(limit.burst))
    }
}

/// Seconds until `missing` tokens are back, rounded up.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "casts of floats saturate, and the value is not negative"
)]
fn seconds(missing: f64, limit: RateLimit) -> u64 {
    (missing.max(0.0) / limit.per_second()).ceil() as u64
}

/// All limits and buckets.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    limits: HashMap<String, RateLimit>,
    buckets: Mutex<HashMap<(TeamId, String), Bucket>>,
}

impl Rates {
    pub(crate) fn new(limits: HashMap<String, RateLimit>) -> Self {
        Self {
            limits,
            buckets: Mutex::default(),
        }
    }

    /// Counts a call; `None` where there is no limit.
    pub(crate) fn take(
        &self,
        team: TeamId,
        method: &Method,
        path: &str,
    ) -> Option<Result<RateState, RateRefused>> {
        if self.limits.is_empty() {
            return None;
        }
        self.take_at(team, format!("{method} {path}"), Instant::now())
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "tokens lie between zero and the burst"
    )]
    fn take_at(
        &self,
        team: TeamId,
        route: String,
        now: Instant,
    ) -> Option<Result<RateState, RateRefused>> {
        let limit = *self.limits.get(&route)?;
        let full = f64::from(limit.burst);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MANY_BUCKETS {
            let limits = &self.limits;
            buckets.retain(|(_, route), bucket| {
                limits
                    .get(route)
                    .is_some_and(|limit| bucket.refilled(*limit, now) < f64::from(limit.burst))
            });
        }
        let bucket = buckets.entry((team, route)).or_insert(Bucket {
            tokens: full,
            at: now,
        });
        let tokens = bucket.refilled(limit, now);
        let allowed = tokens >= 1.0;
        let left = if allowed { tokens - 1.0 } else { tokens };
        *bucket = Bucket {
            tokens: left,
            at: now,
        };
        let state = RateState {
            limit: limit.burst,
            remaining: left as u32,
            reset_s: seconds(full - left, limit),
        };
        Some(if allowed {
            Ok(state)
        } else {
            Err(RateRefused {
                state,
                retry_after_s: seconds(1.0 - left, limit).max(1),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_call_of_a_burst_of_two_waits() {
        let limit = RateLimit {
            burst: 2,
            tokens: 1,
            period: Duration::from_secs(10),
        };
        let rates = Rates::new(HashMap::from([("GET /x".to_owned(), limit)]));
        let (team, start) = (TeamId::random(), Instant::now());
        let call = |after: u64| {
            rates
                .take_at(
                    team,
                    "GET /x".to_owned(),
                    start + Duration::from_secs(after),
                )
                .unwrap()
        };
        assert_eq!(
            call(0).unwrap(),
            RateState {
                limit: 2,
                remaining: 1,
                reset_s: 10
            }
        );
        assert_eq!(
            call(0).unwrap(),
            RateState {
                limit: 2,
                remaining: 0,
                reset_s: 20
            }
        );
        assert_eq!(call(0).unwrap_err().retry_after_s, 10);
        assert_eq!(call(9).unwrap_err().retry_after_s, 1);
        assert!(call(10).is_ok());
        assert!(call(10).is_err());
    }

    #[test]
    fn teams_and_routes_have_buckets_of_their_own() {
        let limit = RateLimit {
            burst: 1,
            tokens: 1,
            period: Duration::from_secs(60),
        };
        let rates = Rates::new(HashMap::from([("GET /x".to_owned(), limit)]));
        let (a, b) = (TeamId::random(), TeamId::random());
        assert!(rates.take(a, &Method::GET, "/x").unwrap().is_ok());
        assert!(rates.take(a, &Method::GET, "/x").unwrap().is_err());
        assert!(rates.take(b, &Method::GET, "/x").unwrap().is_ok());
        assert!(rates.take(a, &Method::POST, "/x").is_none());
    }
}
