//! The nine signature cases of `tests/vectors/signatures.json`, checked with OpenSSL and with Node's crypto.

use serde_json::Value;

/// One case: a body and its signature under a secret.
pub struct Vector {
    pub name: String,
    pub secret: String,
    pub body: Vec<u8>,
    pub signature: String,
}

/// All of them.
pub fn vectors() -> Vec<Vector> {
    let cases: Vec<Value> =
        serde_json::from_str(include_str!("../../vectors/signatures.json")).expect("the vectors are JSON");
    assert_eq!(cases.len(), 9);
    let text = |case: &Value, field: &str| case[field].as_str().expect("a text").to_owned();
    let vector = |case: &Value| Vector {
        name: text(case, "name"),
        secret: text(case, "secret"),
        body: hex::decode(text(case, "body_hex")).expect("hex"),
        signature: text(case, "signature"),
    };
    cases.iter().map(vector).collect()
}
