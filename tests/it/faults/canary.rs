//! Secrets, tokens, codes and phones, each one that stands nowhere else, through everything that the service does at its
//! most talkative: none of them is found afterwards where it does not belong, in any form.

use std::fs::{self, File};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use nexo_receiver::{sandbox, secret::Secret};
use tempfile::TempDir;

use crate::support::{
    database::{Database, on_each_store},
    http::Client,
    oddities::oddities,
    process::{Process, Setup},
    provider::{event, sign_with},
    sender::Sender,
    until::until,
};

on_each_store! { nothing_secret_is_found_where_it_does_not_belong }

/// What must not be found, and what it is.
struct Canaries {
    webhook_secret: String,
    previous_secret: String,
    token: String,
    key: String,
    password: String,
    code: String,
    phone: String,
}

impl Canaries {
    fn new() -> Self {
        let text = |what: &str| format!("{what}-{:016x}/+={:08x}", fastrand::u64(..), fastrand::u32(..));
        Self {
            webhook_secret: text("whsec"),
            previous_secret: text("whsec"),
            token: text("token"),
            key: text("nxr"),
            password: format!("pw{:016x}", fastrand::u64(..)),
            code: format!("{:08}", fastrand::u32(10_000_000..100_000_000)),
            phone: format!("8498{:07}", fastrand::u32(1_000_000..10_000_000)),
        }
    }

    /// Those that belong nowhere but into the environment.
    fn secrets(&self) -> [&str; 6] {
        [&self.webhook_secret, &self.previous_secret, &self.token, &self.key, &self.password, &self.code]
    }

    /// Those that a log may not have either.
    fn all(&self) -> Vec<&str> {
        self.secrets().into_iter().chain([&self.phone[..], &self.phone[2..]]).collect()
    }
}

/// The forms in which a text may have got somewhere.
fn forms(text: &str) -> Vec<Vec<u8>> {
    let bytes = text.as_bytes();
    let mut forms =
        vec![bytes.to_vec(), hex::encode(bytes).into_bytes(), hex::encode_upper(bytes).into_bytes()];
    let escape = |byte: &u8| {
        if byte.is_ascii_alphanumeric() { char::from(*byte).to_string() } else { format!("%{byte:02X}") }
    };
    let url: String = bytes.iter().map(escape).collect();
    forms.push(url.to_lowercase().into_bytes());
    forms.push(url.into_bytes());
    let list: Vec<String> = bytes.iter().map(u8::to_string).collect();
    forms.push(list.join(", ").into_bytes());
    // Within a longer text, at any of three places: without the digits that its neighbours have a part in.
    for before in 0..3 {
        let padded = [vec![b' '; before], bytes.to_vec()].concat();
        let whole = padded.len() / 3 * 3;
        let start = if before == 0 { 0 } else { 4 };
        let coded = STANDARD.encode(&padded[..whole]);
        forms.push(coded.as_bytes()[start..].to_vec());
    }
    forms
}

/// The first that is found, and what stands around it.
fn found(canaries: &[&str], bytes: &[u8]) -> Option<String> {
    let all = canaries.iter().flat_map(|canary| forms(canary).into_iter().map(move |form| (canary, form)));
    let mut all = all.filter_map(|(canary, form)| {
        let at = bytes.windows(form.len()).position(|window| window == form)?;
        let around = &bytes[at.saturating_sub(200)..(at + 200).min(bytes.len())];
        Some(format!("{canary}: {}", String::from_utf8_lossy(around)))
    });
    all.next()
}

fn assert_absent(canaries: &[&str], place: &str, bytes: &[u8]) {
    assert_eq!(found(canaries, bytes), None, "in {place}");
}

async fn nothing_secret_is_found_where_it_does_not_belong(database: Database) {
    let canaries = Canaries::new();
    // The search finds what it is to find.
    for before in ["", "x", "xy"] {
        let hidden = STANDARD.encode(format!("{before}{}z", canaries.token));
        assert!(found(&[&canaries.token], hidden.as_bytes()).is_some());
    }

    let place = TempDir::new().unwrap();
    let log = place.path().join("log");
    let options = sandbox::Options::new(
        Secret::new(canaries.key.clone()),
        Secret::new(canaries.webhook_secret.clone()),
    );
    let provider = sandbox::start(options).await.unwrap();
    let environment = vec![
        ("RUST_LOG", "trace".to_owned()),
        ("RUST_BACKTRACE", "1".to_owned()),
        ("NEXO_WEBHOOK_SECRET", canaries.webhook_secret.clone()),
        ("NEXO_WEBHOOK_SECRET_PREVIOUS", canaries.previous_secret.clone()),
        ("API_TOKEN", canaries.token.clone()),
        ("NEXO_KEY", canaries.key.clone()),
        ("NEXO_BASE_URL", provider.base_url()),
        ("RECONCILE_AFTER_SECONDS", "1".to_owned()),
    ];
    let mut store = database.environment();
    for (name, value) in &mut store {
        if *name == "DATABASE_URL" {
            *value = value.replacen("postgres@", &format!("postgres:{}@", canaries.password), 1);
        }
    }
    let setup = Setup { environment, log: Some(File::create(&log).unwrap()), ..Setup::default() };
    let process = Process::serve_with(&store, setup);
    let mut strangers = String::new();

    let mut sender = Sender::connect(process.address).await;
    let with_phone = |id: &str, status: &str| {
        let body = String::from_utf8(event(id, status)).unwrap();
        body.replace("+84981234567", &format!("+{}", canaries.phone)).into_bytes()
    };
    for (secret, body) in [
        (&canaries.webhook_secret, with_phone("a", "delivered")),
        (&canaries.previous_secret, with_phone("a", "failed")),
        (&canaries.webhook_secret, with_phone("b", "unheard of")),
        (
            &canaries.webhook_secret,
            format!("not understood: +{} {}", canaries.phone, "x".repeat(99)).into_bytes(),
        ),
        (&canaries.key, with_phone("c", "delivered")),
        (&canaries.token, with_phone("d", "delivered")),
    ] {
        let signature = sign_with(secret, &body);
        let headers = [("x-nexo-signature", &signature[..]), ("authorization", &canaries.token)];
        strangers += &format!("{:?}", sender.send(Method::POST, &headers, &body).await.unwrap());
    }
    let client = Client::new(process.address).with(&[&format!("Bearer {}", canaries.token)]);
    let phone = format!("%2B{}", canaries.phone);
    let body = format!(r#"{{"phone":"+{}","code":"{}"}}"#, canaries.phone, canaries.code);
    for (method, path, body) in [
        (Method::GET, format!("/api/v1/deliveries?phone={phone}"), ""),
        (Method::GET, format!("/api/v1/deliveries?phone={phone}&cursor={phone}"), ""),
        (Method::GET, format!("/api/v1/{phone}"), ""),
        (Method::PUT, format!("/api/v1/deliveries/{phone}"), &body),
        (Method::PUT, "/api/v1/deliveries/w".to_owned(), &format!(r#"{{"phone":"+{}"}}"#, canaries.phone)),
        (Method::POST, "/api/v1/send-otp".to_owned(), &body),
        (Method::POST, "/api/v1/send-otp".to_owned(), &body.replace("\"code\"", "\"kode\"")),
        (Method::POST, "/api/v1/send-otp".to_owned(), &body.replace(':', "")),
    ] {
        client.try_send(method.clone(), &path, body).await.unwrap();
        let stranger = client.with(&[&format!("Bearer {}x", canaries.token)]);
        strangers += &format!("{:?}", stranger.try_send(method, &path, body).await);
    }
    for path in ["/healthz", "/readyz", "/", "/metrics"] {
        strangers += &format!("{:?}", client.with(&[]).try_send(Method::GET, path, "").await);
    }
    for (_, bytes) in oddities() {
        let mut stream = tokio::net::TcpStream::connect(process.address).await.unwrap();
        strangers += &super::hostile::exchange(&mut stream, &bytes).await;
    }
    // The provider was asked by itself.
    until(async || provider.calls().iter().any(|call| call.method == Method::GET)).await;
    let metrics = client.get("/metrics").await.body;
    if database.is_postgres() {
        // What an error of the database says.
        database.execute("ALTER TABLE deliveries RENAME TO elsewhere").await;
        let body = with_phone("e", "delivered");
        let headers = [("x-nexo-signature", &sign_with(&canaries.webhook_secret, &body)[..])];
        let reply = sender.send(Method::POST, &headers, &body).await.unwrap();
        assert_eq!(reply.status, 503);
        database.execute("ALTER TABLE elsewhere RENAME TO deliveries").await;
    }
    assert!(process.terminate().success());

    let all = canaries.all();
    assert_absent(&all, "the log and standard error", &fs::read(&log).unwrap());
    assert_absent(&all, "the metrics", &metrics);
    assert_absent(&all, "answers to strangers", strangers.as_bytes());
    assert_absent(&canaries.secrets(), "the store", &database.everything().await);
    println!("{} bytes of log swept", fs::metadata(&log).unwrap().len());
}
