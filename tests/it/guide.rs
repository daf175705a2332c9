//! The receiver of the provider's own guide as a witness: it and ours answer the same bytes alike, but for where the
//! guide's breaks. Both are held to one table.

use std::{collections::BTreeSet, net::SocketAddr};

use nexo_receiver::{secret::Secret, signature::SigningKey};

use crate::support::{
    database::{Database, on_each_store},
    guide::Guide,
    receiver::Receiver,
    vectors::{Vector, vectors},
    wire::Wire,
};

on_each_store! { ours_answers_as_the_guides }

type Answer = (u16, &'static str);
const OK: Answer = (200, "ok");
const BAD_SIGNATURE: Answer = (401, "bad signature");
/// Express's answer to an exception; its text is a page of HTML.
const BROKEN: u16 = 500;

/// One request, and what it is to be answered.
struct Case {
    name: String,
    headers: Vec<u8>,
    body: Vec<u8>,
    ours: Answer,
    guide_breaks: bool,
}

/// All cases under one secret.
fn cases(secret: &str) -> Vec<Case> {
    vectors()
        .iter()
        .filter(|vector| vector.secret == secret)
        .flat_map(|it| signed(it).into_iter().chain(forged(it)))
        .collect()
}

fn secrets() -> BTreeSet<String> {
    vectors().into_iter().map(|vector| vector.secret).collect()
}

const JSON: &str = "Content-Type: application/json\r\n";

/// What the provider did sign.
fn signed(vector: &Vector) -> Vec<Case> {
    let Vector { signature, body, .. } = vector;
    // The guide parses what it has verified and does not catch; ours keeps it in quarantine.
    let unreadable = serde_json::from_str::<serde_json::Value>(&String::from_utf8_lossy(body)).is_err();
    let case = |what: &str, headers: String, guide_breaks| Case {
        name: format!("{}, {what}", vector.name),
        headers: headers.into_bytes(),
        body: body.clone(),
        ours: OK,
        guide_breaks,
    };
    vec![
        case("as it is", format!("{JSON}X-NEXO-Signature: {signature}\r\n"), unreadable),
        case("header in lower case", format!("{JSON}x-nexo-signature: {signature}\r\n"), unreadable),
        case("spaces around", format!("{JSON}X-NEXO-Signature: \t {signature} \t\r\n"), unreadable),
        case("no space", format!("{JSON}X-NEXO-Signature:{signature}\r\n"), unreadable),
        case(
            "with a charset",
            format!("Content-Type: Application/JSON; charset=utf-8\r\nX-NEXO-Signature: {signature}\r\n"),
            unreadable,
        ),
        // The guide reads the body of one type only, and hands `undefined` to the HMAC for all others.
        case("as text", format!("Content-Type: text/plain\r\nX-NEXO-Signature: {signature}\r\n"), true),
        case("of no type", format!("X-NEXO-Signature: {signature}\r\n"), true),
    ]
}

/// What the provider did not sign.
fn forged(vector: &Vector) -> Vec<Case> {
    let Vector { secret, signature, body, .. } = vector;
    let digits = &signature["sha256=".len()..];
    let header = |value: &str| format!("X-NEXO-Signature: {value}\r\n");
    let with_key = |key: &[u8]| header(&SigningKey::from_key(key).sign(body).to_string());
    let with_secret = |secret: &str| SigningKey::from_secret(&Secret::new(secret.to_owned()));
    let forgeries = [
        ("no header", String::new()),
        ("nothing in it", header("")),
        ("no scheme", header(digits)),
        ("another scheme", header(&format!("sha1={digits}"))),
        ("the scheme in upper case", header(&format!("SHA256={digits}"))),
        ("the digits in upper case", header(&format!("sha256={}", digits.to_uppercase()))),
        ("a space after the scheme", header(&format!("sha256= {digits}"))),
        ("a character missing", header(&signature[..signature.len() - 1])),
        ("half of it missing", header(&signature[..signature.len() / 2])),
        ("a character more", header(&format!("{signature}0"))),
        ("one digit changed", header(&flipped(signature))),
        ("no hex", header(&format!("sha256={}", "z".repeat(64)))),
        ("in quotes", header(&format!("\"{signature}\""))),
        ("twice", header(signature).repeat(2)),
        ("twice in one", header(&format!("{signature}, {signature}"))),
        ("a wrong one before", header(&flipped(signature)) + &header(signature)),
        ("a wrong one after", header(signature) + &header(&flipped(signature))),
        ("under another name", format!("X-NEXO-Signature-256: {signature}\r\n")),
        ("of another body", header(&with_secret(secret).sign(&[body, &b" "[..]].concat()).to_string())),
        ("under another secret", header(&with_secret("whsec_test_2").sign(body).to_string())),
        ("under no secret", header(&with_secret("").sign(body).to_string())),
        ("the secret itself as the key", with_key(secret.as_bytes())),
    ];
    let case = |name: &str, headers: Vec<u8>, guide_breaks| Case {
        name: format!("{}, {name}", vector.name),
        headers: [JSON.as_bytes(), &headers].concat(),
        body: body.clone(),
        ours: BAD_SIGNATURE,
        guide_breaks,
    };
    let mut cases: Vec<_> =
        forgeries.into_iter().map(|(name, headers)| case(name, headers.into_bytes(), false)).collect();
    // The guide compares lengths in characters, and then breaks over lengths in bytes.
    let beyond_ascii =
        [b"X-NEXO-Signature: ", &signature.as_bytes()[..signature.len() - 1], b"\xe9\r\n"].concat();
    cases.push(case("a character beyond ASCII", beyond_ascii, true));
    cases
}

/// With another last digit.
fn flipped(signature: &str) -> String {
    let (rest, last) = signature.split_at(signature.len() - 1);
    format!("{rest}{}", if last == "0" { '1' } else { '0' })
}

/// Status and text of the answer.
async fn post(address: SocketAddr, case: &Case) -> (u16, String) {
    let line = format!(
        "POST /webhooks/nexo HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n",
        case.body.len()
    );
    let request = [line.as_bytes(), &case.headers, b"\r\n", &case.body].concat();
    let answer = Wire::open(address).await.send(request).await.until_closed().await;
    let (head, text) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    (head["HTTP/1.1 ".len()..][..3].parse().expect("a status"), text.to_owned())
}

#[tokio::test]
async fn the_guides_receiver_answers_as_told_here() {
    for secret in secrets() {
        let guide = Guide::start(&secret);
        for case in cases(&secret) {
            let (status, text) = post(guide.address, &case).await;
            if case.guide_breaks {
                assert_eq!(status, BROKEN, "{}: {text}", case.name);
            } else {
                assert_eq!((status, text.as_str()), case.ours, "{}", case.name);
            }
        }
    }
}

async fn ours_answers_as_the_guides(database: Database) {
    for secret in secrets() {
        let adjust = |options: &mut nexo_receiver::service::Options| {
            options.webhook_secret = Secret::new(secret.clone())
        };
        let receiver = Receiver::start_with(&database, adjust).await;
        for case in cases(&secret) {
            let (status, text) = post(receiver.address(), &case).await;
            assert_eq!((status, text.as_str()), case.ours, "{}", case.name);
        }
        receiver.stop().await;
    }
}
