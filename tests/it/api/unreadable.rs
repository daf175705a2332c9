//! A row that cannot be read is left out, counted and named, and hides no other.

use super::{Api, DELIVERED, Told};
use crate::support::{
    database::{Database, on_each_store},
    http::Answer,
};

on_each_store! {
    an_unreadable_delivery_hides_no_other,
    pages_go_on_after_unreadable_rows,
    an_unreadable_event_hides_no_other,
    an_unreadable_body_in_quarantine_hides_no_other,
    an_unreadable_delivery_wakes_nobody_wrongly_and_all_others,
}

/// Deliveries beside the unreadable one.
const OTHERS: usize = 100;

/// When they were created; the list's own order is by id then.
const AT: &str = "2026-05-26T10:00:00Z";

/// What a hand may leave in a row of `deliveries`: which column, what, and whether the row is still listed by time.
fn edits(database: &Database) -> Vec<(&'static str, &'static str)> {
    if database.is_postgres() {
        vec![
            ("phone", "'0981234567'"),
            ("standing", "'\\x00'"),
            ("cost", "'NaN'"),
            ("cost", "'Infinity'"),
            ("cost", "1e40"),
            ("cost", "1e-29"),
            ("cost", "12345678901234567890.12345678901"),
            ("created_at", "'infinity'"),
            ("created_at", "'290000-01-01'"),
            ("completed_at", "'-infinity'"),
            ("received_at", "'infinity'"),
            ("received_at", "'10000-01-01'"),
            ("text_id", "''"),
            ("text_id", "repeat('x', 256)"),
        ]
    } else {
        vec![
            ("phone", "'0981234567'"),
            ("standing", "x'00'"),
            ("cost", "'x'"),
            ("cost", "'1e40'"),
            ("cost", "'12345678901234567890.12345678901'"),
            ("created_at", "9223372036854775807"),
            ("completed_at", "-9223372036854775808"),
            ("received_at", "253402300800000000"),
            ("carrier", "CAST(x'ff' AS TEXT)"),
            ("error_code", "CAST(x'ff' AS TEXT)"),
            ("id", "''"),
            ("id", "CAST(x'ff' AS TEXT)"),
            ("id", "printf('%.256c', 'x')"),
        ]
    }
}

/// The delivery in the middle, as SQL finds it whatever its id is.
const BROKEN: &str = "body = (SELECT body FROM deliveries ORDER BY body LIMIT 1 OFFSET 50)";

async fn filled(database: &Database) -> Api {
    let api = Api::start(database).await;
    let bodies: Vec<_> = (0..=OTHERS)
        .map(|n| {
            let id: &str = format!("d{n:03}").leak();
            Told { id, error_code: "busy", status: "failed", created_at: AT, ..DELIVERED }.body()
        })
        .collect();
    let kept: Vec<_> = bodies.iter().map(|body| (body.as_slice(), "2026-05-26T10:00:26Z")).collect();
    api.keep(&kept).await;
    api
}

fn listed(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let list = json["deliveries"].as_array().unwrap_or_else(|| panic!("no list: {json}"));
    list.iter().map(|delivery| delivery["id"].as_str().unwrap().to_owned()).collect()
}

/// All pages of a list.
async fn all(api: &Api, query: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut cursor = String::new();
    for _ in 0..=OTHERS {
        let answer = api.get(&format!("/deliveries?{query}{cursor}")).await;
        assert_eq!(answer.status, 200, "{query}{cursor}: {}", answer.text());
        ids.extend(listed(&answer));
        match answer.json()["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
    panic!("{query}: pages without an end");
}

/// How often a row of a table was left out.
async fn left_out(api: &Api, table: &str) -> u64 {
    let metrics = api.client.get("/metrics").await;
    let name = format!("nexo_unreadable_rows_total{{table=\"{table}\"}} ");
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

async fn an_unreadable_delivery_hides_no_other(database: Database) {
    let api = filled(&database).await;
    let mut others: Vec<_> = (0..=OTHERS).filter(|n| *n != 50).map(|n| format!("d{n:03}")).collect();
    others.reverse();
    for (column, value) in edits(&database) {
        let before = left_out(&api, "deliveries").await;
        database
            .execute(&format!(
                "DROP TABLE IF EXISTS saved; CREATE TABLE saved AS SELECT * FROM deliveries WHERE {BROKEN};
                UPDATE deliveries SET {column} = {value} WHERE {BROKEN}"
            ))
            .await;
        for query in ["limit=500", "limit=50", "limit=51&carrier=viettel", "limit=50&error_code=busy"] {
            let ids = all(&api, query).await;
            assert_eq!(ids, others, "{column} = {value}: {query}");
        }
        assert!(left_out(&api, "deliveries").await >= before, "{column} = {value} is counted");
        if !column.ends_with("id") {
            let (status, error, message) = api.get("/deliveries/d050").await.refusal();
            assert_eq!((status, error.as_str()), (500, "unreadable"), "{column} = {value}");
            assert!(message.contains("`d050`") && message.contains(column), "{message}");
            assert!(!message.contains("0981234567"), "{message}");
        }
        assert_eq!(api.get("/deliveries/d049").await.status, 200);
        database
            .execute(&format!(
                "DELETE FROM deliveries WHERE {BROKEN}; INSERT INTO deliveries SELECT * FROM saved"
            ))
            .await;
        assert_eq!(all(&api, "limit=500").await.len(), OTHERS + 1);
    }
    assert!(left_out(&api, "deliveries").await > 0);
}

async fn pages_go_on_after_unreadable_rows(database: Database) {
    let api = filled(&database).await;
    // The first page, one in the middle and the last have nothing to show.
    database
        .execute(
            "UPDATE deliveries SET phone = '0981234567' WHERE phone IS NOT NULL AND received_at IS NOT NULL
             AND body IN (SELECT body FROM (SELECT body, row_number() OVER (ORDER BY body) AS n FROM deliveries) AS b
                WHERE n <= 12 OR n BETWEEN 50 AND 62 OR n > 90)",
        )
        .await;
    for limit in [1, 5, 6, 500] {
        let ids = all(&api, &format!("limit={limit}")).await;
        assert_eq!(ids.len(), 37 + 28, "{limit} at a time");
        assert!(ids.is_sorted_by(|one, next| one > next), "{ids:?}");
    }
}

async fn an_unreadable_event_hides_no_other(database: Database) {
    let api = filled(&database).await;
    for n in 0..3 {
        let completed_at: &str = format!("2026-05-26T10:00:0{n}Z").leak();
        api.keep(&[(&Told { id: "d007", completed_at, ..DELIVERED }.body(), "2026-05-26T10:01:00Z")]).await;
    }
    let events = |answer: &Answer| answer.json()["events"].as_array().map(Vec::len);
    assert_eq!(events(&api.get("/deliveries/d007/events").await), Some(4));
    let (short, endless) =
        if database.is_postgres() { ("'\\x00'", "'infinity'") } else { ("x'00'", "9223372036854775807") };
    let one = "body = (SELECT body FROM older_events ORDER BY body LIMIT 1)";
    for (column, value) in
        [("signature", short), ("digest", short), ("received_at", endless), ("times", "-1")]
    {
        database.execute(&format!("CREATE TABLE saved AS SELECT * FROM older_events WHERE {one}")).await;
        database.execute(&format!("UPDATE older_events SET {column} = {value} WHERE {one}")).await;
        let answer = api.get("/deliveries/d007/events").await;
        assert_eq!((answer.status.as_u16(), events(&answer)), (200, Some(3)), "{column}: {}", answer.text());
        database
            .execute(&format!(
                "DELETE FROM older_events WHERE {one}; INSERT INTO older_events SELECT * FROM saved;
                DROP TABLE saved"
            ))
            .await;
    }
    assert!(left_out(&api, "older_events").await >= 4);
    // An event that is there but cannot be read is not one that never came.
    database.execute(&format!("UPDATE deliveries SET signature = {short}")).await;
    let (status, error, message) = api.get("/deliveries/d008/events").await.refusal();
    assert_eq!((status, error.as_str()), (500, "unreadable"));
    assert!(message.contains("d008") && message.contains("signature"), "{message}");
}

async fn an_unreadable_body_in_quarantine_hides_no_other(database: Database) {
    let api = Api::start(&database).await;
    let bodies: Vec<_> = (0..9).map(|n| format!("not json {n}")).collect();
    let kept: Vec<_> = bodies.iter().map(|body| (body.as_bytes(), "2026-05-26T10:00:26Z")).collect();
    api.keep(&kept).await;
    let (short, endless) =
        if database.is_postgres() { ("'\\x00'", "'infinity'") } else { ("x'00'", "9223372036854775807") };
    for (column, value) in
        [("signature", short), ("digest", short), ("times", "-1"), ("received_at", endless)]
    {
        let one = "body = (SELECT body FROM quarantine ORDER BY body LIMIT 1 OFFSET 4)";
        database.execute(&format!("CREATE TABLE saved AS SELECT * FROM quarantine WHERE {one}")).await;
        database.execute(&format!("UPDATE quarantine SET {column} = {value} WHERE {one}")).await;
        for limit in [1, 2, 500] {
            let (mut shown, mut cursor) = (0, String::new());
            for _ in 0..10 {
                let answer = api.get(&format!("/quarantine?limit={limit}{cursor}")).await;
                assert_eq!(answer.status, 200, "{column}: {}", answer.text());
                shown += answer.json()["quarantine"].as_array().unwrap().len();
                match answer.json()["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            assert_eq!(shown, 8, "{column}, {limit} at a time");
        }
        database
            .execute(&format!(
                "DELETE FROM quarantine WHERE {one}; INSERT INTO quarantine SELECT * FROM saved; DROP TABLE saved"
            ))
            .await;
    }
    assert!(left_out(&api, "quarantine").await >= 3);
}

async fn an_unreadable_delivery_wakes_nobody_wrongly_and_all_others(database: Database) {
    let api = filled(&database).await;
    database
        .execute("UPDATE deliveries SET phone = '0981234567' WHERE phone IS NOT NULL AND status <> 'sent'")
        .await;
    let (status, error, _) = api.get("/deliveries/d050?wait=5").await.refusal();
    assert_eq!((status, error.as_str()), (500, "unreadable"));
    // Whoever waits for another one is told of it, committed at this replica or at another.
    let other = Told { id: "other", ..DELIVERED }.body();
    let (waited, ()) = tokio::join!(api.get("/deliveries/other?wait=20"), async {
        let (d050, other) = (other.as_slice(), "2026-05-26T10:00:26Z");
        api.keep(&[(d050, other)]).await;
    });
    assert_eq!((waited.status.as_u16(), waited.json()["status"].as_str()), (200, Some("delivered")));
}
