//! Afterwards: whether the API has every event that got its 200.
//!
//! Lives here: asking, many at a time. Does not: where the token comes from.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{task::JoinSet, time::sleep_until};

use super::{Report, target::Target, wire::Connection};
use crate::secret::Secret;

/// How often a question is asked whose answer is neither yes nor no.
const ATTEMPTS: u32 = 5;

/// How long to wait before it is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// How many of the missing are named.
const NAMED: usize = 10;

/// What the API has.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verdict {
    /// Events that were asked for.
    pub asked: u64,
    /// Those that are there.
    pub found: u64,
    /// Those that are not, though they got their 200.
    pub missing: u64,
    /// The ids of the first of them.
    pub missing_ids: Vec<String>,
}

/// Asks deliveries of the API.
#[derive(Debug)]
pub struct Asker {
    target: Target,
    token: Secret,
    addresses: Vec<SocketAddr>,
    connection: Option<Connection>,
}

impl Asker {
    /// Looks the target up; connects when it is asked something.
    ///
    /// # Errors
    /// When the host has no address.
    pub async fn new(target: Target, token: Secret) -> io::Result<Self> {
        let addresses = target.addresses().await?;
        Ok(Self { target, token, addresses, connection: None })
    }

    fn another(&self) -> Self {
        let Self { target, token, addresses, .. } = self;
        Self { target: target.clone(), token: token.clone(), addresses: addresses.clone(), connection: None }
    }

    /// The delivery's JSON; `None` when the API says that there is none.
    ///
    /// # Errors
    /// When the API can't be asked, or answers something else, again and again.
    pub async fn delivery(&mut self, id: &str) -> io::Result<Option<Vec<u8>>> {
        let request = self.target.question(id, self.token.reveal());
        for _ in 1..ATTEMPTS {
            match self.ask(request.as_bytes()).await {
                Ok((200, body)) => return Ok(Some(body)),
                Ok((404, _)) => return Ok(None),
                // Asking again will not help.
                Ok((401 | 403, _)) => break,
                Ok(_) | Err(_) => sleep_until((Instant::now() + AGAIN).into()).await,
            }
        }
        match self.ask(request.as_bytes()).await? {
            (200, body) => Ok(Some(body)),
            (404, _) => Ok(None),
            (401, _) => {
                Err(io::Error::other("the API refuses the token (401): API_TOKEN is not the receiver's"))
            }
            (status, _) => Err(io::Error::other(format!("the API answers {status}"))),
        }
    }

    async fn ask(&mut self, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.addresses).await?,
        };
        let answer = connection.exchange(request).await?;
        let (stays_open, answer) = (answer.stays_open, (answer.status, answer.body.to_vec()));
        if stays_open {
            self.connection = Some(connection);
        }
        Ok(answer)
    }
}

/// Asks for every event of a run that got its 200, over as many connections as the run had.
///
/// # Errors
/// When the API can't be asked.
pub async fn check(target: &Target, token: &Secret, report: &Report) -> io::Result<Verdict> {
    let asker = Asker::new(target.clone(), token.clone()).await?;
    let report = Arc::new(report.clone());
    let next = Arc::new(Mutex::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..report.connections {
        tasks.spawn(ask_all(asker.another(), Arc::clone(&report), Arc::clone(&next)));
    }
    let mut whole = Verdict::default();
    while let Some(part) = tasks.join_next().await {
        let part = part.map_err(io::Error::other)??;
        whole.asked += part.asked;
        whole.found += part.found;
        whole.missing += part.missing;
        whole.missing_ids.extend(part.missing_ids);
    }
    whole.missing_ids.truncate(NAMED);
    Ok(whole)
}

/// Asks for one event after the other, sharing them with others who do.
async fn ask_all(mut asker: Asker, report: Arc<Report>, next: Arc<Mutex<u64>>) -> io::Result<Verdict> {
    let mut verdict = Verdict::default();
    let take = || {
        let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
        let event = report.acknowledged.first_from(*next)?;
        *next = event + 1;
        Some(event)
    };
    while let Some(event) = take() {
        let id = report.ids.id(event);
        let id = String::from_utf8_lossy(&id);
        verdict.asked += 1;
        // The id in the answer, too: whoever answers 200 to everything has nothing.
        let is_there = |body: Vec<u8>| body.windows(id.len()).any(|bytes| bytes == id.as_bytes());
        if asker.delivery(&id).await?.is_some_and(is_there) {
            verdict.found += 1;
        } else {
            verdict.missing += 1;
            if verdict.missing_ids.len() < NAMED {
                verdict.missing_ids.push(id.into_owned());
            }
        }
    }
    Ok(verdict)
}
