//! The read API: every parameter good and bad, every answer as a snapshot that is one for both stores.

mod bearer;
mod deliveries;
mod document;
mod events;
mod extremes;
mod quarantine;
mod stats;
mod stream;
mod unreadable;
mod values;
mod waiting;
mod watch;

use std::sync::Arc;

use nexo_receiver::{
    batch::Batch,
    clock::Timestamp,
    event::Arrival,
    secret::Secret,
    signature::{Keyring, SigningKey},
    store::Store,
};

use crate::support::{
    database::Database,
    http::{Answer, Client},
    receiver::Receiver,
};

/// A served API over a store of its own.
struct Api {
    store: Arc<dyn Store>,
    client: Client,
    _receiver: Receiver,
}

impl Api {
    async fn start(database: &Database) -> Self {
        let receiver = Receiver::start_with(database, |options| {
            options.api_token_previous = Some(Secret::new("token-rotated-out".into()));
        })
        .await;
        Self { store: database.open().await, client: receiver.client(), _receiver: receiver }
    }

    async fn get(&self, path: &str) -> Answer {
        self.client.get(&format!("/api/v1{path}")).await
    }

    /// Commits signed bodies, each received at its time.
    async fn keep(&self, bodies: &[(&[u8], &str)]) {
        let secret = Secret::new("whsec_under_test".into());
        let keyring = Keyring::new(&secret, None);
        let arrivals = bodies.iter().map(|(body, at)| {
            let signature = SigningKey::from_secret(&secret).sign(body);
            let verified = keyring.verify(body.to_vec().into(), signature).expect("just signed");
            Arrival::understand(verified, Timestamp::parse(at).expect("a time"))
        });
        self.store.commit(&Batch::fold(arrivals.collect()).0).await.expect("the store takes it");
    }

    /// Each of these queries is refused with 400, naming this parameter.
    async fn refuses(&self, path: &str, cases: &[(&str, &str)]) {
        for (query, parameter) in cases {
            let (status, error, message) = self.get(&format!("{path}?{query}")).await.refusal();
            assert_eq!((status, error.as_str()), (400, "invalid_parameter"), "{path}?{query}");
            assert!(message.starts_with(&format!("`{parameter}` is ")), "{path}?{query}: {message}");
        }
    }
}

/// An event's body in the provider's form.
#[derive(Clone, Copy)]
struct Told {
    id: &'static str,
    phone: &'static str,
    carrier: &'static str,
    status: &'static str,
    cost: &'static str,
    error_code: &'static str,
    created_at: &'static str,
    completed_at: &'static str,
}

/// A delivered OTP; empty texts stand for null.
const DELIVERED: Told = Told {
    id: "8f2e1c4d",
    phone: "+84981234567",
    carrier: "viettel",
    status: "delivered",
    cost: "0.022",
    error_code: "",
    created_at: "2026-05-26T10:00:00Z",
    completed_at: "2026-05-26T10:00:25Z",
};

impl Told {
    fn body(self) -> Vec<u8> {
        let Self { id, phone, carrier, status, cost, error_code, created_at, completed_at } = self;
        let [id, error_code, created_at, completed_at] =
            [id, error_code, created_at, completed_at].map(|text| {
                if text.is_empty() { "null".to_owned() } else { serde_json::json!(text).to_string() }
            });
        format!(
            "{{\"type\":\"otp.{status}\",\"id\":{id},\"phone\":\"{phone}\",\"carrier\":\"{carrier}\",\
             \"status\":\"{status}\",\"cost\":{cost},\"error_code\":{error_code},\"created_at\":{created_at},\
             \"completed_at\":{completed_at}}}"
        )
        .into_bytes()
    }
}
