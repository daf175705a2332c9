//! The provider's three calls, and one of the sandbox's own that tells what it saw of the receiver.
//!
//! Lives here: routes, JSON in and out. Does not: what a send sets off (`provider`).

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, Query, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
    routing::post,
};
use bytes::Bytes;
use http::{
    StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    attempt::Attempt,
    calls::noted,
    otp::Otp,
    provider::{Accepted, Provider},
    refusal::Refusal,
    wallet::Wallet,
};
use crate::{clock::Timestamp, money::Money};

/// Every route.
pub(super) fn router(provider: Arc<Provider>) -> Router {
    Router::new()
        .route("/api/v1/send-otp", post(send_otp))
        .route("/api/v1/deliveries/{id}", get(delivery))
        .route("/api/v1/balance", get(balance))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&provider), noted))
        .route("/sandbox/attempts", get(attempts))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&provider), require_key))
        .route(
            "/sandbox/deposit",
            get(async || "The sandbox takes no money: start it with a higher --balance.\n"),
        )
        .fallback(no_such_call)
        .with_state(provider)
}

async fn require_key(State(provider): State<Arc<Provider>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.and_then(|value| value.strip_prefix("Bearer "));
    if token == Some(provider.key.reveal()) {
        next.run(request).await
    } else {
        refuse(Refusal::Unauthorized, &provider)
    }
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let text = serde_json::to_vec(body).expect("answers are texts and numbers, which all have JSON");
    (status, [(CONTENT_TYPE, "application/json")], text).into_response()
}

fn refuse(refusal: Refusal, provider: &Provider) -> Response {
    #[derive(Serialize)]
    struct Refused<'a> {
        ok: bool,
        error: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        deposit_url: Option<&'a str>,
    }
    let deposit_url = (refusal == Refusal::InsufficientBalance).then_some(provider.deposit_url.as_str());
    json(refusal.status(), &Refused { ok: false, error: refusal.code(), deposit_url })
}

/// Any other path: mostly a base URL that is not quite right.
async fn no_such_call(State(provider): State<Arc<Provider>>) -> Response {
    #[derive(Serialize)]
    struct Refused {
        ok: bool,
        error: &'static str,
        message: String,
    }
    let message = format!("no such path: the base URL of the sandbox's API is {}", provider.base_url);
    json(StatusCode::NOT_FOUND, &Refused { ok: false, error: Refusal::NotFound.code(), message })
}

async fn send_otp(State(provider): State<Arc<Provider>>, body: Bytes) -> Response {
    #[derive(Serialize)]
    struct Sent<'a> {
        ok: bool,
        id: &'a str,
        carrier: &'a str,
        status: &'static str,
        cost: Money,
        balance: Money,
    }
    let Ok(Value::Object(fields)) = serde_json::from_slice(&body) else {
        return refuse(Refusal::InvalidRequest, &provider);
    };
    let text = |name| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    match provider.send(text("phone"), text("code")) {
        Err(refusal) => refuse(refusal, &provider),
        Ok(Accepted { otp, balance }) => {
            let Otp { id, carrier, cost, .. } = &otp;
            let sent = Sent { ok: true, id, carrier, status: otp.status(), cost: *cost, balance };
            json(StatusCode::ACCEPTED, &sent)
        }
    }
}

async fn delivery(State(provider): State<Arc<Provider>>, Path(id): Path<String>) -> Response {
    #[derive(Serialize)]
    struct Delivery<'a> {
        ok: bool,
        id: &'a str,
        phone: &'a str,
        carrier: &'a str,
        status: &'static str,
        cost: Money,
        error_code: Option<&'a str>,
        created_at: Timestamp,
        #[serde(skip_serializing_if = "Option::is_none")]
        completed_at: Option<Timestamp>,
    }
    let Some(otp) = provider.state().otps.get(&id).cloned() else {
        return refuse(Refusal::NotFound, &provider);
    };
    let delivery = Delivery {
        ok: true,
        id: &otp.id,
        phone: otp.phone.reveal(),
        carrier: otp.carrier,
        status: otp.status(),
        cost: otp.cost,
        error_code: otp.end.as_ref().and_then(|end| end.error_code.as_deref()),
        created_at: otp.created_at,
        completed_at: otp.end.as_ref().map(|end| end.completed_at),
    };
    json(StatusCode::OK, &delivery)
}

async fn balance(State(provider): State<Arc<Provider>>) -> Response {
    #[derive(Serialize)]
    struct Balance {
        ok: bool,
        balance: Money,
        buckets: Wallet,
    }
    let buckets = provider.state().wallet;
    json(StatusCode::OK, &Balance { ok: true, balance: buckets.total(), buckets })
}

#[derive(Deserialize)]
struct Wanted {
    id: Option<String>,
}

/// All attempts, the oldest first, or those of one OTP with `?id=`.
async fn attempts(State(provider): State<Arc<Provider>>, Query(wanted): Query<Wanted>) -> Response {
    #[derive(Serialize)]
    struct Attempts<'a> {
        ok: bool,
        attempts: Vec<Seen<'a>>,
    }
    let is_wanted = |attempt: &&Attempt| wanted.id.as_ref().is_none_or(|id| *id == attempt.id);
    provider.attempts.with(|all| {
        let attempts = all.iter().filter(is_wanted).map(Seen::from).collect();
        json(StatusCode::OK, &Attempts { ok: true, attempts })
    })
}

/// An attempt as it is shown.
#[derive(Serialize)]
struct Seen<'a> {
    id: &'a str,
    status: &'static str,
    nth: u32,
    fault: Option<&'static str>,
    sent_at: Timestamp,
    took_ms: u128,
    answer: Option<u16>,
    answer_text: Option<&'a str>,
    error: Option<&'a str>,
    body: std::borrow::Cow<'a, str>,
    signature: &'a str,
}

impl<'a> From<&'a Attempt> for Seen<'a> {
    fn from(attempt: &'a Attempt) -> Self {
        Self {
            id: &attempt.id,
            status: attempt.status,
            nth: attempt.nth,
            fault: attempt.fault.map(super::Fault::name),
            sent_at: attempt.sent_at,
            took_ms: attempt.took.as_millis(),
            answer: attempt.answered(),
            answer_text: attempt.answer.as_ref().ok().map(|(_, text)| text.as_str()),
            error: attempt.answer.as_ref().err().map(String::as_str),
            body: String::from_utf8_lossy(&attempt.body),
            signature: &attempt.signature,
        }
    }
}
