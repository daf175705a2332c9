//! What calls without the right to make them may cost, however many there are.
//!
//! Lives here: how many refusals an address, and all of them together, may have in a second, and that the ones beyond
//! wait for theirs and are not logged. Does not: who has a right (`webhook`, `bearer`), or whose call it is (`client`).
//!
//! Whether a webhook is forged is known only once its bytes were read and their HMAC made. A sender who waits for an
//! answer before the next attempt is slowed down by waiting; a signed event never waits, whatever its address did.

use std::{
    collections::HashMap,
    future::pending,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::response::Response;
use tokio::sync::Semaphore;

use super::{Options, answer::closing, deadline::Deadlines, observe::RequestId};

/// How long a refusal beyond the limit waits; also how often such are logged.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Of all connections, one in so many may be waiting for a late refusal; others are closed instead.
const PART_OF_CONNECTIONS: usize = 4;

/// Addresses that are remembered at most: some 100 bytes each.
const MOST_ADDRESSES: usize = 16_384;

/// Why a call was refused: an extension of the answer, for the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Problem(pub(super) &'static str);

/// Those who were refused of late.
pub(super) struct Strangers {
    per_address: Rate,
    overall: Rate,
    waiting: Semaphore,
    state: Mutex<State>,
}

/// Refusals a second; 0 for any number.
#[derive(Debug, Clone, Copy)]
struct Rate(u32);

#[derive(Default)]
struct State {
    overall: Bucket,
    by_address: HashMap<IpAddr, Bucket>,
    /// When those that are dry were last forgotten.
    swept: Option<Instant>,
    /// Refusals that were not logged, and since when.
    unlogged: u64,
    since: Option<Instant>,
}

/// Fills with each refusal and runs dry at its rate.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    level: f64,
    at: Option<Instant>,
}

impl Bucket {
    /// How full it still is.
    fn level(&self, rate: Rate, now: Instant) -> f64 {
        let since = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        (self.level - since.as_secs_f64() * f64::from(rate.0)).max(0.0)
    }

    /// Takes one more, if a second's worth has room for it.
    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        if rate.0 == 0 {
            return true;
        }
        let level = self.level(rate, now) + 1.0;
        let has_room = level <= f64::from(rate.0);
        if has_room {
            *self = Self { level, at: Some(now) };
        }
        has_room
    }
}

impl State {
    fn take(&mut self, address: IpAddr, per_address: Rate, overall: Rate, now: Instant) -> bool {
        // A bucket is dry after a second: to look through all of them more often would cost more than a forged call.
        let is_due = self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= PAUSE);
        if self.by_address.len() >= MOST_ADDRESSES && is_due {
            self.swept = Some(now);
            self.by_address.retain(|_, bucket| bucket.level(per_address, now) > 0.0);
        }
        let is_known = self.by_address.contains_key(&address);
        let own = if per_address.0 == 0 {
            true
        } else if is_known || self.by_address.len() < MOST_ADDRESSES {
            self.by_address.entry(address).or_default().take(per_address, now)
        } else {
            // So many addresses at once are one flood.
            false
        };
        own && self.overall.take(overall, now)
    }
}

impl Strangers {
    /// With the limits that the options set, if they do.
    pub(super) fn new(options: &Options) -> Self {
        Self {
            per_address: Rate(options.refused_per_address),
            overall: Rate(options.refused_per_second),
            waiting: Semaphore::new((options.connections / PART_OF_CONNECTIONS).max(1)),
            state: Mutex::default(),
        }
    }

    /// Logs a refusal and, when there were too many, holds it back for a while.
    pub(super) async fn refuse(
        &self,
        response: Response,
        client: IpAddr,
        id: &RequestId,
        deadlines: &Deadlines,
    ) -> Response {
        if self.is_within_limits(client, Instant::now()) {
            let id = id.to_value();
            let request_id = id.to_str().ok();
            let problem = response.extensions().get::<Problem>().map_or("no active token", |it| it.0);
            tracing::warn!(request_id, %client, problem, "refused");
            return response;
        }
        if let Ok(_place) = self.waiting.try_acquire() {
            deadlines.within(PAUSE, pending::<()>()).await;
        }
        closing(response)
    }

    fn is_within_limits(&self, client: IpAddr, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_within = state.take(network(client), self.per_address, self.overall, now);
        state.unlogged += u64::from(!is_within);
        let since = *state.since.get_or_insert(now);
        if state.unlogged > 0 && now.saturating_duration_since(since) >= PAUSE {
            let refused = std::mem::take(&mut state.unlogged);
            state.since = Some(now);
            tracing::warn!(
                refused,
                "more calls are refused than the limit allows: they wait and are not logged"
            );
        }
        is_within
    }
}

/// What counts as one address: of IPv6 the 64 bits that a site has, since all others are its own to choose.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many of so many refusals at one moment are within the limits.
    fn within(state: &mut State, from: &str, [own, all]: [u32; 2], now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| state.take(network(address(from)), Rate(own), Rate(all), now)).count()
    }

    #[test]
    fn each_address_has_its_own_limit_and_all_together_have_one() {
        let (mut state, now, limits) = (State::default(), Instant::now(), [10, 25]);
        for (from, expected) in
            [("192.0.2.1", 10), ("192.0.2.2", 10), ("2001:db8::1", 5), ("2001:db8::2", 0), ("192.0.2.3", 0)]
        {
            assert_eq!(within(&mut state, from, limits, now, 100), expected, "{from}");
        }
        let later = now + Duration::from_millis(500);
        assert_eq!(within(&mut state, "192.0.2.1", limits, later, 100), 5);
        assert_eq!(within(&mut state, "192.0.2.9", limits, now + Duration::from_secs(60), 100), 10);
    }

    #[test]
    fn one_site_of_ipv6_is_one_address() {
        let (mut state, now) = (State::default(), Instant::now());
        assert_eq!(within(&mut state, "2001:db8::1", [3, 0], now, 5), 3);
        assert_eq!(within(&mut state, "2001:db8::ffff", [3, 0], now, 5), 0);
        assert_eq!(within(&mut state, "2001:db8:0:1::1", [3, 0], now, 5), 3);
    }

    #[test]
    fn without_limits_nobody_is_beyond_them_and_nobody_remembered() {
        let (mut state, now) = (State::default(), Instant::now());
        assert_eq!(within(&mut state, "192.0.2.1", [0, 0], now, 1_000), 1_000);
        assert!(state.by_address.is_empty());
    }

    #[test]
    fn addresses_are_not_remembered_without_end() {
        let (mut state, now) = (State::default(), Instant::now());
        for n in 0..=u32::try_from(MOST_ADDRESSES).unwrap() {
            let fits = state.take(IpAddr::from(n.to_be_bytes()), Rate(5), Rate(0), now);
            assert_eq!(fits, (n as usize) < MOST_ADDRESSES);
        }
        let later = now + Duration::from_secs(1);
        assert!(state.take(address("203.0.113.1"), Rate(5), Rate(0), later));
        assert_eq!(state.by_address.len(), 1);
    }
}
