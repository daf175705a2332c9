//! The receiver of the provider's own guide as a witness: it and ours answer the same bytes alike, but for where the
//! guide's breaks. Both are held to one table.

use std::{collections::BTreeSet, net::SocketAddr};

use fastrand::Rng;
use nexo_receiver::{secret::Secret, signature::SigningKey};

use crate::support::{
    database::{Database, on_each_store},
    guide::Guide,
    provider::event,
    receiver::Receiver,
    rounds, seed,
    vectors::{Vector, vectors},
    wire::Wire,
};

on_each_store! { ours_answers_as_the_guides, ours_and_the_guides_agree_on_whatever_comes }

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

/// Anything: a body, and a header that may be its signature. Answers the request, and whether it is rightly signed.
fn whatever(rng: &mut Rng, secret: &str) -> (Vec<u8>, Vec<u8>, bool) {
    let key = |secret: &str| SigningKey::from_secret(&Secret::new(secret.to_owned()));
    let text = |rng: &mut Rng, most| (0..rng.usize(..most)).map(|_| rng.u8(..)).collect::<Vec<u8>>();
    let mut body = match rng.u8(..6) {
        0 => text(rng, 200),
        1 => text(rng, 20_000).into_iter().map(|byte| byte % 95 + 32).collect(),
        2 => b"{\"a\":".repeat(rng.usize(..200)),
        _ => event(&format!("id-{}", rng.u64(..)), if rng.bool() { "delivered" } else { "failed" }),
    };
    let right = key(secret).sign(&body).to_string();
    let other = if rng.bool() { format!("{secret}x") } else { String::new() };
    let header = |value: &[u8]| [b"X-NEXO-Signature: ", value, b"\r\n"].concat();
    let headers = match rng.u8(..16) {
        0 => Vec::new(),
        1 => header(b""),
        2 => header(&right.to_uppercase().into_bytes()),
        3 => header(&right.as_bytes()[..rng.usize(..right.len())]),
        4 => header(format!("{right}{}", rng.alphanumeric()).as_bytes()),
        5 => header(key(&other).sign(&body).to_string().as_bytes()),
        6 => header(right.as_bytes()).repeat(2),
        7 => {
            let mut wrong = right.clone().into_bytes();
            let at = rng.usize(..wrong.len());
            wrong[at] = *rng.choice(b"0123456789abcdefg=, ").expect("it is not empty");
            header(&wrong)
        }
        8 => {
            // A changed body under a signature that was right.
            match body.is_empty() {
                true => body.push(b' '),
                false => {
                    let at = rng.usize(..body.len());
                    body[at] ^= 1 << rng.u8(..8);
                }
            }
            header(right.as_bytes())
        }
        9 => header(format!(" \t{right}\t ").as_bytes()),
        10 => header(format!("sha256=sha256={}", &right["sha256=".len()..]).as_bytes()),
        _ => header(right.as_bytes()),
    };
    let value = headers.strip_prefix(b"X-NEXO-Signature: ").and_then(|rest| rest.strip_suffix(b"\r\n"));
    let is_right =
        value.is_some_and(|value| value.trim_ascii() == key(secret).sign(&body).to_string().as_bytes());
    let length = format!("Content-Length: {}\r\n\r\n", body.len());
    let line = b"POST /webhooks/nexo HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n";
    ([&line[..], &headers, length.as_bytes(), &body].concat(), body, is_right)
}

async fn ours_and_the_guides_agree_on_whatever_comes(database: Database) {
    const AT_ONCE: usize = 8;
    let (rounds, seed) = (rounds(400), seed());
    let receiver = Receiver::start(&database).await;
    let secret = crate::support::provider::WEBHOOK_SECRET;
    let guide = Guide::start(secret);
    let (ours, theirs) = (receiver.address(), guide.address);
    let mut lanes = tokio::task::JoinSet::new();
    for lane in 0..AT_ONCE {
        let mut rng = Rng::with_seed(seed + lane as u64);
        lanes.spawn(async move {
            let (mut here, mut there) = (Wire::open(ours).await, Wire::open(theirs).await);
            let mut accepted = 0;
            for _ in 0..rounds.div_ceil(AT_ONCE) {
                let (request, body, is_right) = whatever(&mut rng, secret);
                let status = |answer: String| answer["HTTP/1.1 ".len()..][..3].parse::<u16>().unwrap();
                let ours = status(here.send(&request).await.answer().await);
                let guides = status(there.send(&request).await.answer().await);
                let printed = String::from_utf8_lossy(&request).into_owned();
                assert_eq!(ours, if is_right { 200 } else { 401 }, "seed {seed}: {printed}");
                // It does not catch what its parser throws, after it has accepted the signature.
                let is_json = serde_json::from_str::<serde_json::Value>(&String::from_utf8_lossy(&body));
                let is_event = is_json.is_ok_and(|json| !json.is_null());
                assert_eq!(
                    guides,
                    if is_right && !is_event { BROKEN } else { ours },
                    "seed {seed}: {printed}"
                );
                accepted += usize::from(is_right);
            }
            accepted
        });
    }
    let accepted: usize = lanes.join_all().await.into_iter().sum();
    assert!(accepted * 5 > rounds, "{accepted} of {rounds}");
    receiver.stop().await;
}
