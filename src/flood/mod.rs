//! Signed events in numbers, at a steady rate or the highest: what a receiver is measured with.
//!
//! Lives here: a run from its first connection to its [`Report`]. Does not: arguments and printing (`cli/flood`).
//! It is to cost far less than what it measures: requests are patched in place, and HTTP is done by hand.

pub mod check;
mod events;
mod pace;
mod report;
pub mod sample;
mod tally;
pub mod target;
pub mod wire;

use std::{
    future::Future,
    io,
    net::SocketAddr,
    num::NonZeroU32,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{interval, sleep_until, timeout},
};

use crate::signature::SigningKey;
use events::{Draft, Events};
use pace::Schedule;
pub use report::{Latency, Report};
use tally::Tally;
use target::Target;
use wire::Connection;

/// How long no answer at all may come, and how long what was due may take after the end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection that could not be made waits before it is tried again.
const RECONNECT: Duration = Duration::from_millis(100);

/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(100);

/// When a run has had enough.
#[derive(Debug, Clone, Copy)]
pub enum Amount {
    /// After so many requests.
    Count(u64),
    /// After so long.
    Duration(Duration),
}

/// What a run does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where it goes.
    pub target: Target,
    /// How many connections, with one request at a time on each.
    pub connections: usize,
    /// How many requests.
    pub amount: Amount,
    /// How many a second, whatever becomes of them (open loop); without it, as fast as answers come.
    pub rate: Option<NonZeroU32>,
    /// How many of a hundred requests are the one before again.
    pub duplicates: u8,
    /// Whether all requests are one and the same, for comparing with tools that can't do otherwise.
    pub fixed: bool,
}

/// How far a run is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Of its requests or its time, from 0 to 1.
    pub share: f64,
    /// Answers.
    pub answered: u64,
    /// Since the start.
    pub elapsed: Duration,
}

/// Runs a plan, until it is done, `stop` is, or nothing comes back any more.
///
/// # Errors
/// When the target can't be reached at the start.
pub async fn run(
    plan: Plan,
    key: SigningKey,
    stop: impl Future<Output = ()>,
    mut progress: impl FnMut(Progress),
) -> io::Result<Report> {
    let addresses = plan.target.addresses().await?;
    let connections = timeout(PATIENCE, connect(&addresses, plan.connections)).await??;
    let processor = report::processor_time();
    let run = Arc::new(Run::new(plan, key, addresses));
    let mut tasks = JoinSet::new();
    for (slot, connection) in connections.into_iter().enumerate() {
        tasks.spawn(work(Arc::clone(&run), slot, connection));
    }
    if let Some(schedule) = run.schedule {
        let run = Arc::downgrade(&run);
        pace::keep(schedule, move |due| run.upgrade().is_some_and(|run| run.tell(due)))?;
    }
    let (mut stop, mut done) = (pin!(stop), pin!(tasks.join_all()));
    let mut ticks = interval(PROGRESS);
    loop {
        tokio::select! {
            _ = &mut done => break,
            () = &mut stop => break,
            _ = ticks.tick() => {
                progress(run.progress());
                if run.is_stuck() {
                    break;
                }
            }
        }
    }
    Ok(Report { processor: report::processor_time().saturating_sub(processor), ..run.report() })
}

async fn connect(addresses: &[SocketAddr], number: usize) -> io::Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(number);
    for _ in 0..number {
        connections.push(Connection::open(addresses).await?);
    }
    Ok(connections)
}

/// What the connections of a run share.
struct Run {
    plan: Plan,
    addresses: Vec<SocketAddr>,
    events: Events,
    start: Instant,
    /// The end of the plan's time, if it has one.
    until: Option<Instant>,
    schedule: Option<Schedule>,
    state: Mutex<State>,
    /// Told once for each request that has become due.
    due: Notify,
}

struct State {
    /// Requests that a connection has taken upon itself.
    taken: u64,
    /// Requests whose time has come.
    due: u64,
    /// When the request was due that a connection waits for.
    in_flight: Vec<Option<Instant>>,
    tally: Tally,
}

/// A request to be made.
struct Ticket {
    number: u64,
    due: Instant,
}

impl Run {
    fn new(plan: Plan, key: SigningKey, addresses: Vec<SocketAddr>) -> Self {
        let start = Instant::now();
        let schedule = plan.rate.map(|rate| {
            let total = match plan.amount {
                Amount::Count(count) => count,
                Amount::Duration(time) => {
                    let total = time.as_nanos() * u128::from(rate.get()) / 1_000_000_000;
                    u64::try_from(total).unwrap_or(u64::MAX).max(1)
                }
            };
            Schedule { start, rate, total }
        });
        let until = match plan.amount {
            Amount::Count(_) => schedule.map(|schedule| schedule.due(schedule.total)),
            Amount::Duration(time) => Some(start + time),
        };
        let state =
            State { taken: 0, due: 0, in_flight: vec![None; plan.connections], tally: Tally::new(start) };
        let events = Events::new(&plan.target, key);
        Self { plan, addresses, events, start, until, schedule, state: Mutex::new(state), due: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next request that is due; `None` when there are no more.
    async fn next(&self, slot: usize) -> Option<Ticket> {
        loop {
            // Made before the look, so that nothing told in between is missed.
            let told = self.due.notified();
            match self.try_next(slot) {
                Err(Nothing::Yet) => told.await,
                Err(Nothing::More) => return None,
                Ok(ticket) => return Some(ticket),
            }
        }
    }

    fn try_next(&self, slot: usize) -> Result<Ticket, Nothing> {
        let mut state = self.state();
        let number = state.taken;
        let due = match self.schedule {
            Some(schedule) if number >= schedule.total => return Err(Nothing::More),
            Some(_) if number >= state.due => return Err(Nothing::Yet),
            Some(schedule) => schedule.due(number),
            None => {
                let now = Instant::now();
                let enough = match self.plan.amount {
                    Amount::Count(count) => number >= count,
                    Amount::Duration(time) => now.duration_since(self.start) >= time,
                };
                if enough {
                    return Err(Nothing::More);
                }
                now
            }
        };
        state.taken += 1;
        state.in_flight[slot] = Some(due);
        Ok(Ticket { number, due })
    }

    /// Tells the connections how many requests are due; whether there will be more.
    fn tell(&self, due: u64) -> bool {
        let before = std::mem::replace(&mut self.state().due, due);
        for _ in before..due {
            self.due.notify_one();
        }
        let is_last = self.schedule.is_some_and(|schedule| due == schedule.total);
        if is_last {
            self.due.notify_waiters();
        }
        !is_last
    }

    /// Whether this request is to be the one before again.
    fn is_repeat(&self, number: u64) -> bool {
        // Spread evenly: a step of 61 visits each of a hundred.
        number * 61 % 100 < u64::from(self.plan.duplicates)
    }

    /// Puts down what came of a request.
    fn came(&self, slot: usize, ticket: &Ticket, event: u64, result: &io::Result<(u16, bool)>) {
        let now = Instant::now();
        let mut state = self.state();
        state.in_flight[slot] = None;
        match result {
            Ok((status, _)) => {
                state.tally.answered(event, *status, now);
                state.tally.waited(now.duration_since(ticket.due));
            }
            Err(error) => state.tally.broke(error),
        }
    }

    /// Makes a new connection; `None` when nothing is left to be sent over it.
    async fn reconnect(&self) -> Option<Connection> {
        loop {
            match Connection::open(&self.addresses).await {
                Ok(connection) => return Some(connection),
                Err(error) => self.state().tally.broke(&error),
            }
            if self.is_over() {
                return None;
            }
            sleep_until((Instant::now() + RECONNECT).into()).await;
        }
    }

    /// Whether every request has been taken.
    fn is_over(&self) -> bool {
        match (self.schedule, self.plan.amount) {
            (Some(Schedule { total, .. }), _) | (None, Amount::Count(total)) => self.state().taken >= total,
            (None, Amount::Duration(time)) => self.start.elapsed() >= time,
        }
    }

    /// Whether it makes no sense to wait for more.
    fn is_stuck(&self) -> bool {
        self.state().tally.last_answer.elapsed() > PATIENCE
            || self.until.is_some_and(|until| Instant::now() > until + PATIENCE)
    }

    #[expect(clippy::cast_precision_loss, reason = "it is shown as a bar")]
    fn progress(&self) -> Progress {
        let (answered, elapsed) = (self.state().tally.answered_in_all(), self.start.elapsed());
        let share = match self.plan.amount {
            Amount::Count(count) => answered as f64 / count as f64,
            Amount::Duration(time) => elapsed.as_secs_f64() / time.as_secs_f64(),
        };
        Progress { share: share.min(1.0), answered, elapsed }
    }

    /// Ends the run: what has not been answered has waited until now, and counts with that.
    fn report(&self) -> Report {
        let now = Instant::now();
        let mut state = self.state();
        let State { taken, in_flight, tally, .. } = &mut *state;
        let waiting = in_flight.iter().flatten().map(|due| now.saturating_duration_since(*due));
        let mut unanswered = 0;
        for wait in waiting {
            unanswered += 1;
            tally.waited(wait);
        }
        let mut unsent = 0;
        if let Some(schedule) = self.schedule {
            for number in *taken..schedule.due_by(now) {
                unsent += 1;
                tally.waited(now.saturating_duration_since(schedule.due(number)));
            }
        }
        Report::new(&self.plan, self.start, *taken, tally, [unanswered, unsent], self.events.ids)
    }
}

enum Nothing {
    Yet,
    More,
}

/// Sends what is due over one connection after the other, until there is no more.
async fn work(run: Arc<Run>, slot: usize, mut connection: Connection) {
    let mut draft = Draft::default();
    let mut drafted = None;
    while let Some(ticket) = run.next(slot).await {
        let event = match drafted {
            Some(event) if run.is_repeat(ticket.number) => {
                run.state().tally.repeats += 1;
                event
            }
            _ => {
                let (event, elapsed) = match run.plan.fixed {
                    true => (0, Duration::ZERO),
                    false => (ticket.number, ticket.due.duration_since(run.start)),
                };
                run.events.write(event, elapsed, &mut draft);
                event
            }
        };
        drafted = Some(event);
        let answer = connection.exchange(&draft.request).await;
        let result = answer.map(|answer| (answer.status, answer.stays_open));
        run.came(slot, &ticket, event, &result);
        if !matches!(result, Ok((_, true))) {
            let Some(fresh) = run.reconnect().await else { return };
            connection = fresh;
        }
    }
}
