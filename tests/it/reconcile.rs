//! What no webhook tells is asked of the provider, which is the sandbox; its webhooks go nowhere.

use std::{
    collections::BTreeMap,
    process::{Command, Output},
    time::{Duration, Instant},
};

use http::{Method, StatusCode};
use nexo_receiver::{
    clock::Timestamp,
    money::Money,
    provider, reconcile,
    sandbox::{self, Outage, Outcome, Wallet},
    secret::Secret,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use url::Url;

use crate::support::{
    database::{Database, on_each_store},
    http::Client,
    process::{Process, Setup},
    provider::WEBHOOK_SECRET,
    receiver::Receiver,
    until::until,
    wire::PATIENCE,
};

on_each_store! {
    every_otp_is_settled_without_any_webhook_and_within_the_ceiling,
    a_provider_that_is_down_meets_no_storm,
    a_provider_that_asks_for_time_gets_it,
    a_provider_that_asks_for_all_time_is_left_alone_for_some,
    what_the_provider_does_not_know_stays_sent,
    what_is_too_old_is_stale_in_all_places,
    the_command_says_what_differs_and_keeps_it,
}

const KEY: &str = "sk_live_of_a_test";
const PHONE: &str = "+84981234567";
const AFTER: Duration = Duration::from_secs(1);
const CEILING: u32 = 50;

async fn sandbox() -> sandbox::Running {
    let secret = |text: &str| Secret::new(text.to_owned());
    let usd = |text| Money::parse(text).unwrap();
    let wallet = Wallet { balance: usd("1000"), bonus_credit: Money::ZERO, free_credit: Money::ZERO };
    sandbox::start(sandbox::Options { wallet, ..sandbox::Options::new(secret(KEY), secret(WEBHOOK_SECRET)) })
        .await
        .unwrap()
}

fn provider_of(sandbox: &sandbox::Running, timeout: Duration) -> provider::Options {
    let base_url = Url::parse(&sandbox.base_url()).unwrap();
    provider::Options {
        base_url,
        key: Secret::new(KEY.into()),
        connect_timeout: timeout,
        timeout,
        proxy: None,
    }
}

async fn asking(database: &Database, sandbox: &sandbox::Running) -> Receiver {
    Receiver::start_with(database, |options| {
        options.provider = Some(provider_of(sandbox, Duration::from_secs(1)));
        options.reconcile = reconcile::Options { after: AFTER, calls_per_second: CEILING };
    })
    .await
}

/// Sends so many, over eight connections.
async fn send(client: &Client, count: usize) {
    let mut senders = JoinSet::new();
    for lane in 0..8 {
        let client = client.clone();
        senders.spawn(async move {
            for _ in (lane..count).step_by(8) {
                let body = json!({"phone": PHONE, "code": "482917"}).to_string();
                let sent = client.send_with(Method::POST, "/api/v1/send-otp", &body).await;
                assert_eq!(sent.status, StatusCode::ACCEPTED, "{}", sent.text());
            }
        });
    }
    senders.join_all().await;
}

async fn until_all_are_settled(database: &Database, count: i64) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while database.number("SELECT count(*) FROM deliveries WHERE status <> 'sent'").await < count {
        assert!(tokio::time::Instant::now() < deadline, "some are not settled");
    }
}

/// When each delivery was asked for.
fn polls(sandbox: &sandbox::Running) -> BTreeMap<String, Vec<Instant>> {
    let mut polls = BTreeMap::<_, Vec<_>>::new();
    for call in sandbox.calls() {
        if let Some(id) = call.path.strip_prefix("/api/v1/deliveries/") {
            polls.entry(id.to_owned()).or_default().push(call.at);
        }
    }
    polls
}

/// No second has more polls than the ceiling, and those that a busy machine has kept waiting for a fifth of one.
fn assert_within_the_ceiling(sandbox: &sandbox::Running) {
    let mut times: Vec<_> = polls(sandbox).into_values().flatten().collect();
    times.sort();
    for (first, time) in times.iter().enumerate() {
        let within =
            times[first..].iter().take_while(|later| **later - *time < Duration::from_secs(1)).count();
        assert!(within <= (CEILING + CEILING / 5) as usize, "{within} polls in a second");
    }
}

async fn every_otp_is_settled_without_any_webhook_and_within_the_ceiling(database: Database) {
    let sandbox = sandbox().await;
    let receiver = asking(&database, &sandbox).await;
    let begun = Instant::now();
    send(&receiver.client(), 120).await;
    until_all_are_settled(&database, 120).await;
    let polls = polls(&sandbox);
    assert_eq!(polls.len(), 120);
    assert!(polls.values().all(|times| times[0] - begun >= AFTER), "not before its time");
    assert_within_the_ceiling(&sandbox);
    receiver.until_metric("nexo_polls_total{outcome=\"settled\"} ", |polls| polls == 120.0).await;

    let id = polls.keys().next().unwrap();
    let client = receiver.client();
    let shown = client.get(&format!("/api/v1/deliveries/{id}")).await.json();
    assert_eq!((&shown["status"], &shown["source"]), (&json!("delivered"), &json!("poll")));
    let events = client.get(&format!("/api/v1/deliveries/{id}/events")).await.json();
    let kinds: Vec<_> = events["events"].as_array().unwrap().iter().map(|event| &event["type"]).collect();
    assert_eq!(kinds, ["send", "poll"]);
    assert!(events["events"][1]["body"].as_str().unwrap().contains("carrier"), "as the provider wrote it");
}

async fn a_provider_that_is_down_meets_no_storm(database: Database) {
    let sandbox = sandbox().await;
    let receiver = asking(&database, &sandbox).await;
    send(&receiver.client(), 40).await;
    sandbox.set_outage(Some(Outage::Down));
    receiver.until_metric("nexo_provider_paused ", |paused| paused == 1.0).await;
    let opened = Instant::now();
    // A pause of a second, of two: two more calls at most, each of which is enough to go on waiting.
    while opened.elapsed() < Duration::from_secs(3) {
        receiver.until_metric("nexo_provider_paused ", |paused| paused == 1.0).await;
    }
    let refused = sandbox.calls().iter().filter(|call| call.refused).count();
    assert!((3..=8).contains(&refused), "{refused} calls while it was down");
    sandbox.set_outage(None);
    until_all_are_settled(&database, 40).await;
    assert_within_the_ceiling(&sandbox);
    receiver.until_metric("nexo_provider_paused ", |paused| paused == 0.0).await;
}

async fn a_provider_that_asks_for_time_gets_it(database: Database) {
    let sandbox = sandbox().await;
    let receiver = asking(&database, &sandbox).await;
    send(&receiver.client(), 20).await;
    let time = Duration::from_secs(3);
    sandbox.set_outage(Some(Outage::TooManyCalls(time)));
    receiver.until_metric("nexo_provider_paused ", |paused| paused == 1.0).await;
    sandbox.set_outage(None);
    until_all_are_settled(&database, 20).await;
    let calls = sandbox.calls();
    let last_refused = calls.iter().rfind(|call| call.refused).unwrap().at;
    let next = calls.iter().find(|call| call.at > last_refused).unwrap().at;
    assert!(next - last_refused >= time - Duration::from_millis(100), "{:?}", next - last_refused);
    assert!(calls.iter().filter(|call| call.refused).count() <= 3, "those under way");
}

/// For how long, `provider` and the breaker's own tests say.
async fn a_provider_that_asks_for_all_time_is_left_alone_for_some(database: Database) {
    let sandbox = sandbox().await;
    let receiver = asking(&database, &sandbox).await;
    send(&receiver.client(), 1).await;
    sandbox.set_outage(Some(Outage::TooManyCalls(Duration::from_secs(u64::MAX))));
    receiver.until_metric("nexo_polls_total{outcome=\"refused\"} ", |polls| polls >= 1.0).await;
    receiver.until_metric("nexo_provider_paused ", |paused| paused == 1.0).await;
}

async fn what_the_provider_does_not_know_stays_sent(database: Database) {
    let sandbox = sandbox().await;
    let receiver = asking(&database, &sandbox).await;
    let client = receiver.client();
    client.send_with(Method::PUT, "/api/v1/deliveries/elsewhere", "").await;
    receiver.until_metric("nexo_polls_total{outcome=\"not_found\"} ", |polls| polls >= 1.0).await;
    let shown = client.get("/api/v1/deliveries/elsewhere").await.json();
    assert_eq!((&shown["status"], &shown["stale"]), (&json!("sent"), &Value::Null));
}

async fn what_is_too_old_is_stale_in_all_places(database: Database) {
    let sandbox = sandbox().await;
    let receiver = asking(&database, &sandbox).await;
    let client = receiver.client();
    for (id, hours) in [("old", 25), ("young", 23)] {
        let created_at = Timestamp::now().hours_before(hours).to_string();
        let body = json!({"created_at": created_at, "carrier": "viettel"}).to_string();
        let shown = client.send_with(Method::PUT, &format!("/api/v1/deliveries/{id}"), &body).await.json();
        assert_eq!(shown["stale"] == true, id == "old", "{shown}");
    }
    receiver.until_metric("nexo_stale_total ", |stale| stale == 1.0).await;
    let from = Timestamp::now().hours_before(48);
    let stats = client.get(&format!("/api/v1/stats?from={from}&by=carrier")).await.json();
    for figures in [&stats["total"], &stats["groups"][0]] {
        assert_eq!((&figures["sent"], &figures["stale"]), (&json!(2), &json!(1)), "{stats}");
    }
    let list = client.get("/api/v1/deliveries").await.json();
    assert_eq!(
        (&list["deliveries"][1]["id"], &list["deliveries"][1]["stale"]),
        (&json!("old"), &json!(true))
    );
    assert!(!polls(&sandbox).contains_key("old"), "nobody asks for it any more");
}

fn reconcile_command(database: &Database, sandbox: &sandbox::Running, from: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nexo-receiver"))
        .args(["reconcile", "--from", from])
        .env_clear()
        .envs(database.environment())
        .envs([
            ("NEXO_KEY", KEY),
            ("NEXO_BASE_URL", &sandbox.base_url()),
            ("RECONCILE_CALLS_PER_SECOND", "1000"),
        ])
        .output()
        .unwrap()
}

async fn the_command_says_what_differs_and_keeps_it(database: Database) {
    let sandbox = sandbox().await;
    // It never asks by itself.
    let receiver = Receiver::start(&database).await;
    let client = receiver.client();
    let provider = provider::Provider::new(&provider_of(&sandbox, PATIENCE)).unwrap();
    let code = provider::Code::parse("482917").unwrap();
    let phone = nexo_receiver::phone::Phone::parse(PHONE).unwrap();
    sandbox.set_outcome(PHONE, Outcome::Failed("busy".into()));
    let id = provider.send(&phone, &code).await.unwrap().answer.id.as_str().to_owned();
    sandbox.settled(PATIENCE).await.unwrap();
    for (id, cost) in [(id.as_str(), "0.03"), ("elsewhere", "0.01")] {
        let body = format!(r#"{{"phone":"{PHONE}","carrier":"viettel","cost":{cost}}}"#);
        client.send_with(Method::PUT, &format!("/api/v1/deliveries/{id}"), &body).await;
    }
    let from = Timestamp::now().hours_before(1).to_string();
    let run = || {
        let output = reconcile_command(&database, &sandbox, &from);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = run();
    assert_eq!(code, Some(1));
    assert_eq!(
        said,
        format!(
            "{id}  status sent -> failed  error_code none -> busy  cost 0.03 -> 0.022\n\
             elsewhere  the provider does not know it\n\
             asked for 2: 1 differed and are kept as the provider says, 1 it does not know, 0 can't be read\n\
             cost as we were told 0.03 USD, as charged 0.022 USD\n"
        )
    );
    let shown = client.get(&format!("/api/v1/deliveries/{id}")).await.json();
    assert_eq!(
        (&shown["status"], &shown["source"], &shown["cost"]),
        (&json!("failed"), &json!("poll"), &json!(0.022))
    );
    let (_, said) = run();
    assert!(said.contains("asked for 2: 0 differed"), "{said}");
}

/// Writes down each claim of a poll, by the database's clock, which is the one that leases go by.
const CLAIMS: &str = "
CREATE TABLE claims (delivery_id uuid, at timestamptz, lease double precision);
CREATE FUNCTION note_claim() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO claims VALUES (NEW.delivery_id, now(), extract(epoch FROM NEW.next_at - now()));
    RETURN NULL;
END $$;
CREATE TRIGGER note_claim AFTER UPDATE ON polls FOR EACH ROW EXECUTE FUNCTION note_claim()";

/// Claims of the same delivery that follow each other before the first one's lease is over.
const EARLY: &str = "
SELECT count(*) FROM (SELECT at, lease, lead(at) OVER (PARTITION BY delivery_id ORDER BY at) AS next FROM claims) AS c
WHERE next < at + lease * interval '1 second'";

/// Turns that follow each other sooner than the ceiling, of 50 calls a second, allows.
const CROWDED: &str = "
SELECT count(*) FROM (SELECT at, count(*) AS calls, lead(at) OVER (ORDER BY at) AS next FROM claims GROUP BY at) AS c
WHERE next < at + calls * interval '20 milliseconds'";

/// Two processes share the work; one is killed in the middle of its turn.
///
/// A claim is what the lease counts from. When calls arrive says nothing about it: a busy machine may delay one by any
/// time, so arrivals are only counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replicas_share_is_taken_over_and_nothing_is_asked_for_twice_within_its_lease() {
    const COUNT: usize = 200;
    let database = Database::on_postgres().await;
    database.execute(CLAIMS).await;
    let sandbox = sandbox().await;
    // All are due when the two start, so that each turn is a whole one.
    let sender = Receiver::start_with(&database, |options| {
        options.provider = Some(provider_of(&sandbox, PATIENCE));
        options.reconcile.after = Duration::from_secs(3_600);
    })
    .await;
    send(&sender.client(), COUNT).await;
    sender.stop().await;
    // A second of the turn and twice the time of a call: who made a claim shows in its lease, of 3 or of 5 seconds.
    let mut replicas = ["1", "2"].map(|call_seconds| {
        let environment = vec![
            ("NEXO_KEY", KEY.to_owned()),
            ("NEXO_BASE_URL", sandbox.base_url()),
            ("PROVIDER_CALL_SECONDS", call_seconds.to_owned()),
            ("RECONCILE_AFTER_SECONDS", AFTER.as_secs().to_string()),
            ("RECONCILE_CALLS_PER_SECOND", CEILING.to_string()),
        ];
        let setup = Setup { environment, ..Setup::default() };
        Some(Process::serve_with(&database.environment(), setup))
    });
    let claimed = async || {
        let claimed = database.number("SELECT count(*) FROM claims").await;
        usize::try_from(claimed).unwrap()
    };
    // The first turn has a second of calls before it.
    let mut lease = 0;
    until(async || {
        lease = database.number("SELECT COALESCE(max(lease), 0)::bigint FROM claims").await;
        lease > 0
    })
    .await;
    replicas[usize::from(lease == 5)].take().unwrap().kill();
    until_all_are_settled(&database, i64::try_from(COUNT).unwrap()).await;
    let polls = polls(&sandbox);
    assert_eq!(polls.len(), COUNT);
    assert!(claimed().await > COUNT, "what the killed one had claimed was claimed again");
    assert_eq!(database.number("SELECT count(*) FROM claims WHERE lease < 3").await, 0);
    assert_eq!(database.number(EARLY).await, 0, "claimed again before the lease was over");
    assert_eq!(database.number(CROWDED).await, 0, "a turn was taken before the last one's time was over");
    for (id, times) in &polls {
        let claims = format!("SELECT count(*) FROM claims WHERE delivery_id = '{id}'");
        let claims = usize::try_from(database.number(&claims).await).unwrap();
        assert!(times.len() <= claims, "{id} was asked for {} times on {claims} claims", times.len());
    }
}
