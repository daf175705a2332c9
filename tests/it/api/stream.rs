//! `GET /deliveries/stream`: every change once, whoever commits it, however often the reader is cut off.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use http::{Method, StatusCode};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::support::{
    database::{Database, on_each_store, pgbouncer},
    http::API_TOKEN,
    provider::event,
    receiver::Receiver,
    stream::{Event, Stream},
    wire::PATIENCE,
};

on_each_store! {
    each_change_is_told_as_it_stands,
    only_what_is_followed_is_told,
    times_mean_the_same_as_in_a_list,
    a_row_that_cannot_be_read_is_left_out,
    who_comes_back_goes_on_where_it_was,
    ten_thousand_changes_are_each_seen_once_through_twenty_cuts,
    a_slow_reader_is_cut_off_and_a_quick_one_sees_all,
    a_place_that_is_no_longer_kept_is_told,
    a_stop_ends_the_stream,
    a_wrong_call_is_named,
}

async fn open(address: SocketAddr, query: &str) -> Stream {
    Stream::open(address, query, None).await.expect("a stream")
}

async fn post(receiver: &Receiver, body: &[u8]) {
    assert_eq!(receiver.sender().await.post(body).await.short(), (200, "ok"));
}

async fn tell(receiver: &Receiver, id: &str, body: &str) {
    let told = receiver.client().send_with(Method::PUT, &format!("/api/v1/deliveries/{id}"), body).await;
    assert_eq!(told.status, StatusCode::OK);
}

async fn each_change_is_told_as_it_stands(database: Database) {
    let receiver = Receiver::start(&database).await;
    let mut earlier = open(receiver.address(), "").await;
    post(&receiver, &event("before", "delivered")).await;
    // Now no older transaction is under way, of any database of that Postgres, so that the next begins after it.
    assert_eq!(earlier.delivery().await.unwrap().1["id"], "before");
    let mut stream = open(receiver.address(), "").await;
    let first = stream.next().await.unwrap();
    assert_eq!(first.delivery, None, "where it begins");
    tell(&receiver, "a", "").await;
    let told = stream.delivery().await.unwrap().1;
    assert_eq!((&told["id"], &told["status"]), (&json!("a"), &json!("sent")));
    // What is known already, and the same again, are no changes.
    tell(&receiver, "a", "").await;
    post(&receiver, &event("a", "delivered")).await;
    post(&receiver, &event("a", "delivered")).await;
    tell(&receiver, "a", r#"{"carrier":"itel"}"#).await;
    let mut shown = receiver.client().get("/api/v1/deliveries/a").await.json();
    shown.as_object_mut().unwrap().remove("ok");
    assert_eq!(stream.delivery().await.unwrap().1, shown);
    post(&receiver, &event("b", "failed")).await;
    assert_eq!(stream.delivery().await.unwrap().1["id"], "b");
}

async fn only_what_is_followed_is_told(database: Database) {
    let receiver = Receiver::start(&database).await;
    let mut failed = open(receiver.address(), "?status=failed").await;
    let mut phone = open(receiver.address(), "?phone=+84911111111&carrier=viettel").await;
    for (id, status) in [("a", "delivered"), ("b", "failed"), ("c", "delivered")] {
        post(&receiver, &event(id, status)).await;
    }
    tell(&receiver, "d", r#"{"phone":"+84911111111","carrier":"viettel"}"#).await;
    tell(&receiver, "e", r#"{"phone":"+84911111111","carrier":"itel"}"#).await;
    post(&receiver, &event("f", "failed")).await;
    assert_eq!(failed.delivery().await.unwrap().1["id"], "b");
    assert_eq!(failed.delivery().await.unwrap().1["id"], "f");
    assert_eq!(phone.delivery().await.unwrap().1["id"], "d");
}

/// A delivery is listed under the time when it was announced, whatever an event says later of its creation.
async fn times_mean_the_same_as_in_a_list(database: Database) {
    const LATER: &str = "2026-05-27T00:00:00Z";
    let receiver = Receiver::start(&database).await;
    tell(&receiver, "announced", "").await;
    let (mut from, mut to) = (
        open(receiver.address(), &format!("?from={LATER}")).await,
        open(receiver.address(), &format!("?to={LATER}")).await,
    );
    // Both are read up to here.
    from.next().await.unwrap();
    to.next().await.unwrap();
    for id in ["announced", "created-before"] {
        post(&receiver, &event(id, "delivered")).await;
    }
    tell(&receiver, "announced-later", "").await;
    let listed = async |query: String| {
        let list = receiver.client().get(&format!("/api/v1/deliveries?{query}")).await.json();
        let ids = list["deliveries"].as_array().unwrap().iter().rev().map(|it| it["id"].clone());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(listed(format!("from={LATER}")).await, ["announced", "announced-later"]);
    assert_eq!(listed(format!("to={LATER}")).await, ["created-before"]);
    let told = timeout(PATIENCE, async {
        let mut told = Vec::new();
        while told.last() != Some(&json!("announced-later")) {
            told.push(from.delivery().await.unwrap().1["id"].clone());
        }
        (told, to.delivery().await.unwrap().1["id"].clone())
    });
    let (told, before) = told.await.unwrap();
    assert!(told.ends_with(&[json!("announced"), json!("announced-later")]), "{told:?}");
    assert!(!told.contains(&json!("created-before")), "{told:?}");
    assert_eq!(before, "created-before");
}

async fn a_row_that_cannot_be_read_is_left_out(database: Database) {
    let receiver = Receiver::start(&database).await;
    let begin = open(receiver.address(), "").await.next().await.unwrap().id;
    for n in 0..101 {
        post(&receiver, &event(&format!("e{n}"), "delivered")).await;
    }
    let id = if database.is_postgres() { "text_id" } else { "id" };
    let edit = format!("UPDATE deliveries SET phone = '0981234567' WHERE {id} IN ('e50', 'e100')");
    database.execute(&edit).await;
    let mut stream = Stream::open(receiver.address(), "", Some(&begin)).await.unwrap();
    for n in (0..50).chain(51..100) {
        assert_eq!(stream.delivery().await.unwrap().1["id"], format!("e{n}"));
    }
    receiver
        .until_metric("nexo_unreadable_rows_total{table=\"deliveries\"} ", |left_out| left_out >= 2.0)
        .await;
    post(&receiver, &event("later", "delivered")).await;
    assert_eq!(stream.delivery().await.unwrap().1["id"], "later");
}

async fn who_comes_back_goes_on_where_it_was(database: Database) {
    let receiver = Receiver::start(&database).await;
    let mut stream = open(receiver.address(), "").await;
    let begin = stream.next().await.unwrap().id;
    for id in ["a", "b", "c"] {
        post(&receiver, &event(id, "delivered")).await;
    }
    let (first, _) = stream.delivery().await.unwrap();
    drop(stream);
    post(&receiver, &event("d", "delivered")).await;
    for (last, expected) in [(&begin, "abcd"), (&first, "bcd")] {
        let address = receiver.address();
        let mut by_header = Stream::open(address, "", Some(last)).await.unwrap();
        let mut by_query = open(address, &format!("?last_event_id={last}")).await;
        for stream in [&mut by_header, &mut by_query] {
            let mut seen = String::new();
            while seen.len() < expected.len() {
                seen += stream.delivery().await.unwrap().1["id"].as_str().unwrap();
            }
            assert_eq!(seen, expected);
        }
    }
}

const CHANGES: usize = 10_000;

/// Follows through twenty cuts, at these replicas in turn, until so many changes were seen.
async fn followed(addresses: Vec<SocketAddr>, begin: String) -> Vec<(String, String)> {
    const CUTS: usize = 20;
    let (mut seen, mut last) = (Vec::new(), begin);
    for cut in 0.. {
        let address = addresses[cut % addresses.len()];
        let mut stream = Stream::open(address, "", Some(&last)).await.expect("a stream");
        let until = if cut < CUTS { (cut + 1) * CHANGES / (CUTS + 1) } else { CHANGES };
        while seen.len() < until {
            let (id, delivery) = stream.delivery().await.expect("the stream goes on");
            last.clone_from(&id);
            seen.push((id, delivery["id"].as_str().unwrap().to_owned()));
        }
        if seen.len() >= CHANGES {
            assert!(cut >= CUTS);
            return seen;
        }
    }
    unreachable!()
}

/// Half as many deliveries, each first `sent` and then `delivered`, by senders at these replicas. Their ids are long, so
/// that all changes are more than the 4 MiB which the kernel may keep for a reader.
fn change(addresses: &[SocketAddr]) -> JoinSet<()> {
    const SENDERS: usize = 16;
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let address = addresses[sender % addresses.len()];
        senders.spawn(async move {
            let mut connection = crate::support::sender::Sender::connect(address).await;
            for n in (sender..CHANGES / 2).step_by(SENDERS) {
                for status in ["sent", "delivered"] {
                    let event = event(&format!("{n:0>250}"), status);
                    assert_eq!(connection.post(&event).await.short(), (200, "ok"));
                }
            }
        });
    }
    senders
}

fn assert_each_once(seen: &[(String, String)]) {
    let places: BTreeSet<_> = seen.iter().map(|(place, _)| place).collect();
    assert_eq!(places.len(), CHANGES, "no place twice");
    let mut times = BTreeMap::<_, usize>::new();
    for (_, id) in seen {
        *times.entry(id).or_default() += 1;
    }
    assert_eq!(times.len(), CHANGES / 2);
    assert!(times.values().all(|times| *times == 2), "each delivery changed twice");
}

async fn ten_thousand_changes_are_each_seen_once_through_twenty_cuts(database: Database) {
    let receiver = Receiver::start(&database).await;
    let addresses = vec![receiver.address()];
    let begin = open(addresses[0], "").await.next().await.unwrap().id;
    let changing = change(&addresses);
    assert_each_once(&followed(addresses, begin).await);
    changing.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_changes_are_each_seen_once_at_either() {
    let database = Database::on_postgres().await;
    let replicas = [Receiver::start(&database).await, Receiver::start(&database).await];
    let addresses = replicas.iter().map(Receiver::address).collect::<Vec<_>>();
    let begin = open(addresses[0], "").await.next().await.unwrap().id;
    let changing = change(&addresses);
    let reader = tokio::spawn(followed(addresses.clone(), begin.clone()));
    let other = tokio::spawn(followed(addresses.into_iter().rev().collect(), begin));
    let (one, other) = (reader.await.unwrap(), other.await.unwrap());
    assert_each_once(&one);
    let places = |seen: &[(String, String)]| seen.iter().map(|(place, _)| place.clone()).collect::<Vec<_>>();
    assert_eq!(places(&one), places(&other), "one order at both");
    changing.join_all().await;
    for replica in replicas {
        replica.stop().await;
    }
}

/// What is committed meanwhile has no place yet, since what is still under way may come before it.
#[tokio::test(flavor = "multi_thread")]
async fn who_begins_during_an_older_transaction_is_told_what_came_after_it() {
    let database = Database::on_postgres().await;
    let receiver = Receiver::start(&database).await;
    let mut older = database.direct().await;
    older.execute("BEGIN; SELECT pg_current_xact_id()").await;
    post(&receiver, &event("meanwhile", "delivered")).await;
    let mut stream = open(receiver.address(), "").await;
    assert_eq!(stream.next().await.unwrap().delivery, None, "where it begins");
    older.close().await;
    post(&receiver, &event("after", "delivered")).await;
    for id in ["meanwhile", "after"] {
        assert_eq!(stream.delivery().await.unwrap().1["id"], id);
    }
    receiver.stop().await;
}

/// The connection over which one replica hears of the other's commits is ended again and again.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missed_while_nobody_listens() {
    let database = Database::on_postgres().await;
    let [here, there] = [Receiver::start(&database).await, Receiver::start(&database).await];
    let mut stream = open(here.address(), "").await;
    let mut ended = 0;
    for n in 0..20 {
        if n % 4 == 0 {
            let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE datname = current_database() AND query ILIKE 'LISTEN%'";
            ended += database.number(end).await;
        }
        let id = format!("e{n}");
        post(&there, &event(&id, "delivered")).await;
        assert_eq!(stream.delivery().await.unwrap().1["id"], id.as_str());
    }
    // Behind pgbouncer nobody can.
    assert_eq!(ended > 0, pgbouncer().is_none(), "whether anybody listened");
    here.stop().await;
    there.stop().await;
}

/// A reader whose window is small, and which reads nothing.
async fn stalled(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let request = format!(
        "GET /api/v1/deliveries/stream HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {API_TOKEN}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn a_slow_reader_is_cut_off_and_a_quick_one_sees_all(database: Database) {
    let receiver = Receiver::start_with(&database, |options| {
        options.http.write_timeout = Duration::from_secs(1);
    })
    .await;
    let mut quick = open(receiver.address(), "").await;
    let _stalled = stalled(receiver.address()).await;
    receiver.until_metric("nexo_streams ", |streams| streams == 2.0).await;
    let changing = change(&[receiver.address()]);
    for _ in 0..CHANGES {
        quick.delivery().await.expect("it goes on");
    }
    changing.join_all().await;
    receiver.until_metric("nexo_streams ", |streams| streams == 1.0).await;
}

async fn a_place_that_is_no_longer_kept_is_told(database: Database) {
    let receiver = Receiver::start(&database).await;
    let begin = open(receiver.address(), "").await.next().await.unwrap().id;
    post(&receiver, &event("a", "delivered")).await;
    post(&receiver, &event("b", "delivered")).await;
    let store = database.open().await;
    let later = nexo_receiver::clock::Timestamp::now();
    let later = nexo_receiver::clock::Timestamp::from_micros(later.micros() + 25 * 3_600_000_000).unwrap();
    assert!(store.forget(later).await.unwrap() >= 2);
    for place in [begin.as_str(), "9223372036854775807", "0"] {
        let refused = Stream::open(receiver.address(), "", Some(place)).await.err().expect("no stream");
        assert_eq!(
            (refused.status.as_u16(), refused.refusal().1.as_str()),
            (410, "position_expired"),
            "{place}"
        );
    }
    let mut stream = open(receiver.address(), "").await;
    stream.next().await.unwrap();
    post(&receiver, &event("c", "delivered")).await;
    assert_eq!(stream.delivery().await.unwrap().1["id"], "c");
}

async fn a_stop_ends_the_stream(database: Database) {
    let receiver = Receiver::start(&database).await;
    let mut stream = open(receiver.address(), "").await;
    stream.next().await.unwrap();
    timeout(PATIENCE, receiver.stop()).await.unwrap();
    assert_eq!(stream.next().await, None::<Event>);
}

async fn a_wrong_call_is_named(database: Database) {
    let receiver = Receiver::start(&database).await;
    for (query, named) in
        [("?limit=1", "`limit`"), ("?last_event_id=x", "`last_event_id`"), ("?status=lost", "`status`")]
    {
        let refused = Stream::open(receiver.address(), query, None).await.err().expect("no stream");
        let (status, error, message) = refused.refusal();
        assert_eq!((status, error.as_str()), (400, "invalid_parameter"), "{query}");
        assert!(message.starts_with(named), "{message}");
    }
    let refused = Stream::open(receiver.address(), "", Some("x")).await.err().expect("no stream");
    assert_eq!(refused.refusal().0, 400);
}
