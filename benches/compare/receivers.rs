//! The peers in Rust: axum with a bare check of the signature, and axum with sqlx and an upsert for each event.
//!
//! Written as somebody would who does not have ours, and with nothing of ours.

use std::{io, net::Ipv4Addr, sync::Arc, thread};

use anyhow::bail;
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::post,
    serve::ListenerExt as _,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, StatusCode};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use sqlx::{PgPool, postgres::PgPoolOptions};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::net::TcpListener;

const UPSERT: &str = include_str!("peers/upsert.sql");
const PATH: &str = "/webhooks/nexo";
const LARGEST: usize = 64 << 10;

/// Be one of the peers.
#[derive(Debug, clap::Parser)]
pub(crate) struct Receiver {
    name: String,
    #[arg(long)]
    port: u16,
    #[arg(long)]
    secret: String,
    #[arg(long)]
    database: String,
    #[arg(long)]
    pool: u32,
}

impl Receiver {
    /// The first argument of a process that is to be one.
    pub(crate) const NAME: &str = "receiver";

    pub(crate) fn run(self) -> anyhow::Result<()> {
        // Ends with whoever started it.
        thread::spawn(|| {
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            std::process::exit(0);
        });
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(self.serve())
    }

    async fn serve(self) -> anyhow::Result<()> {
        let key = Arc::new(Hmac::new_from_slice(&Sha256::digest(&self.secret))?);
        let app = match self.name.as_str() {
            "bare" => Router::new().route(PATH, post(check)).with_state(key),
            "one-by-one" => {
                // Without the ping before each statement that is usual: it costs a tenth, and a sender repeats what
                // a broken connection has lost.
                let pool = PgPoolOptions::new().test_before_acquire(false).max_connections(self.pool);
                let pool = pool.connect(&self.database).await?;
                let signed = middleware::from_fn_with_state(key, signed);
                Router::new().route(PATH, post(keep)).layer(signed).with_state(pool)
            }
            name => bail!("no peer is called {name}"),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await?;
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        Ok(axum::serve(listener, app).await?)
    }
}

type Key = Arc<Hmac<Sha256>>;

fn is_signed(key: &Key, headers: &HeaderMap, body: &[u8]) -> bool {
    let Some(digits) = headers.get("x-nexo-signature").and_then(|it| it.as_bytes().strip_prefix(b"sha256="))
    else {
        return false;
    };
    let mut signature = [0; 32];
    hex::decode_to_slice(digits, &mut signature).is_ok()
        && Hmac::clone(key).chain_update(body).verify_slice(&signature).is_ok()
}

/// Keeps nothing.
async fn check(State(key): State<Key>, headers: HeaderMap, body: Bytes) -> Response {
    match is_signed(&key, &headers, &body) {
        true => "ok".into_response(),
        false => (StatusCode::UNAUTHORIZED, "bad signature").into_response(),
    }
}

/// Lets through what is signed.
async fn signed(State(key): State<Key>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LARGEST).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    match is_signed(&key, &parts.headers, &body) {
        true => next.run(Request::from_parts(parts, Body::from(body))).await,
        false => (StatusCode::UNAUTHORIZED, "bad signature").into_response(),
    }
}

#[derive(Deserialize)]
struct Event<'a> {
    id: &'a str,
    phone: &'a str,
    carrier: &'a str,
    status: &'a str,
    #[serde(borrow)]
    cost: &'a RawValue,
    error_code: Option<&'a str>,
    created_at: &'a str,
    completed_at: Option<&'a str>,
}

/// Upserts the one event.
async fn keep(State(pool): State<PgPool>, body: Bytes) -> Result<&'static str, StatusCode> {
    let event: Event<'_> = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let cost: Decimal = event.cost.get().parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    let time = |text: &str| OffsetDateTime::parse(text, &Rfc3339).map_err(|_| StatusCode::BAD_REQUEST);
    sqlx::query(UPSERT)
        .bind(event.id)
        .bind(event.phone)
        .bind(event.carrier)
        .bind(event.status)
        .bind(cost)
        .bind(event.error_code)
        .bind(time(event.created_at)?)
        .bind(event.completed_at.map(time).transpose()?)
        .bind(&body[..])
        .execute(&pool)
        .await
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok("ok")
}
