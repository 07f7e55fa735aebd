//! Token buckets by team and route, by team, and by key.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use warren_types::{ApiKeyId, TeamId};

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
    fn per_minute(calls: u32) -> Self {
        Self {
            burst: calls,
            tokens: calls,
            period: Duration::from_secs(60),
        }
    }

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
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "tokens lie between zero and the burst"
    )]
    fn new(tokens: f64, limit: RateLimit) -> Self {
        Self {
            limit: limit.burst,
            remaining: tokens as u32,
            reset_s: seconds(f64::from(limit.burst) - tokens, limit),
        }
    }

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

/// What a bucket counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Counted {
    /// Calls of a team to a route.
    Route(TeamId, String),
    /// All calls of a team.
    Team(TeamId),
    /// All calls with a key.
    Key(ApiKeyId),
}

/// Who calls, and how often they may call anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calling {
    pub(crate) team: TeamId,
    pub(crate) key: Option<ApiKeyId>,
    /// Calls of the team in a minute.
    pub(crate) team_per_minute: Option<u32>,
    /// Calls with the key in a minute.
    pub(crate) key_per_minute: Option<u32>,
}

/// All limits and buckets.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    limits: HashMap<String, RateLimit>,
    buckets: Mutex<HashMap<Counted, (RateLimit, Bucket)>>,
}

impl Rates {
    pub(crate) fn new(limits: HashMap<String, RateLimit>) -> Self {
        Self {
            limits,
            buckets: Mutex::default(),
        }
    }

    /// Counts a call against every limit that it is under, or against none if one refuses
    /// it; `None` where there is no limit. What is told is the limit that is nearest.
    pub(crate) fn take(
        &self,
        calling: Calling,
        method: &Method,
        path: &str,
    ) -> Option<Result<RateState, RateRefused>> {
        let under = self.under(calling, method, path);
        if under.is_empty() {
            return None;
        }
        Some(self.take_at(under, Instant::now()))
    }

    fn under(&self, calling: Calling, method: &Method, path: &str) -> Vec<(Counted, RateLimit)> {
        let mut under = Vec::new();
        if !self.limits.is_empty() {
            let route = format!("{method} {path}");
            if let Some(limit) = self.limits.get(&route) {
                under.push((Counted::Route(calling.team, route), *limit));
            }
        }
        if let Some(calls) = calling.team_per_minute {
            under.push((Counted::Team(calling.team), RateLimit::per_minute(calls)));
        }
        if let Some((key, calls)) = calling.key.zip(calling.key_per_minute) {
            under.push((Counted::Key(key), RateLimit::per_minute(calls)));
        }
        under
    }

    fn take_at(
        &self,
        under: Vec<(Counted, RateLimit)>,
        now: Instant,
    ) -> Result<RateState, RateRefused> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MANY_BUCKETS {
            buckets
                .retain(|_, (limit, bucket)| bucket.refilled(*limit, now) < f64::from(limit.burst));
        }
        let left = |counted: &Counted, limit: RateLimit| {
            buckets
                .get(counted)
                .map_or(f64::from(limit.burst), |(_, b)| b.refilled(limit, now))
        };
        let taken: Vec<_> = under
            .into_iter()
            .map(|(counted, limit)| (left(&counted, limit), counted, limit))
            .collect();
        let refused = taken.iter().filter(|(left, ..)| *left < 1.0);
        let refused = refused.map(|(left, _, limit)| RateRefused {
            state: RateState::new(*left, *limit),
            retry_after_s: seconds(1.0 - left, *limit).max(1),
        });
        if let Some(refused) = refused.max_by_key(|refused| refused.retry_after_s) {
            return Err(refused);
        }
        let mut nearest: Option<RateState> = None;
        for (left, counted, limit) in taken {
            let tokens = left - 1.0;
            buckets.insert(counted, (limit, Bucket { tokens, at: now }));
            let state = RateState::new(tokens, limit);
            if nearest.is_none_or(|nearest| state.remaining < nearest.remaining) {
                nearest = Some(state);
            }
        }
        Ok(nearest.expect("a call under a limit"))
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
        let (team, start) = (calling(), Instant::now());
        let call = |after: u64| {
            let under = rates.under(team, &Method::GET, "/x");
            rates.take_at(under, start + Duration::from_secs(after))
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
        let (a, b) = (calling(), calling());
        assert!(rates.take(a, &Method::GET, "/x").unwrap().is_ok());
        assert!(rates.take(a, &Method::GET, "/x").unwrap().is_err());
        assert!(rates.take(b, &Method::GET, "/x").unwrap().is_ok());
        assert!(rates.take(a, &Method::POST, "/x").is_none());
    }

    fn calling() -> Calling {
        Calling {
            team: TeamId::random(),
            key: Some(ApiKeyId::random()),
            team_per_minute: None,
            key_per_minute: None,
        }
    }

    #[test]
    fn a_call_that_one_limit_refuses_costs_the_others_nothing() {
        let rates = Rates::default();
        let one = Calling {
            team_per_minute: Some(3),
            key_per_minute: Some(1),
            ..calling()
        };
        let other = Calling {
            key: Some(ApiKeyId::random()),
            ..one
        };
        let take = |who| rates.take(who, &Method::GET, "/x").unwrap();
        assert_eq!(take(one).unwrap().limit, 1, "the nearest limit is told");
        for _ in 0..5 {
            let refused = take(one).unwrap_err();
            assert!((1..=60).contains(&refused.retry_after_s), "{refused:?}");
        }
        assert!(take(other).is_ok(), "the team's calls are not used up");
        let none = Calling {
            team_per_minute: None,
            key_per_minute: None,
            ..one
        };
        assert!(rates.take(none, &Method::GET, "/x").is_none());
    }

    #[test]
    fn a_limit_of_zero_refuses_all() {
        let closed = Calling {
            key_per_minute: Some(0),
            ..calling()
        };
        let rates = Rates::default();
        assert!(rates.take(closed, &Method::GET, "/x").unwrap().is_err());
    }
}
