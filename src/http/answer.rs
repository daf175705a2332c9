//! What all answers of the API share: JSON, `"ok"` first, kept in no cache, and how kept bytes are shown.
//!
//! Lives here: [`Answer`], [`ShownBytes`], answers in plain text. Does not: refusals (`refusal`).

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::{proof::Proof, store::query::Page};

/// A success: `{"ok":true, …}` with the fields of `T`.
///
/// Written straight to text: a `serde_json::Value` on the way would turn money into binary floating point.
#[derive(Serialize)]
pub(crate) struct Answer<T> {
    ok: bool,
    #[serde(flatten)]
    fields: T,
}

impl<T: Serialize> Answer<T> {
    /// The answer that says this.
    pub(crate) fn new(fields: T) -> Self {
        Self { ok: true, fields }
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        json(StatusCode::OK, &self)
    }
}

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let text =
        serde_json::to_vec(body).expect("answers are structs of texts and numbers, which all have JSON");
    json_text(status, text)
}

/// An answer that is JSON already. It may hold personal data, so no cache is to keep it.
pub(crate) fn json_text(status: StatusCode, text: impl Into<Body>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, text.into()).into_response()
}

/// An answer in plain text.
pub(crate) fn text(status: StatusCode, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The same answer, after which the connection is closed.
pub(crate) fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Converts a page's entries to what is shown of them; the next page's cursor beside.
pub(crate) fn shown<T, S: From<T>>(page: Page<T>) -> (Vec<S>, Option<String>) {
    (page.entries.into_iter().map(S::from).collect(), page.next)
}

/// Kept bytes with their signature, null if nobody signed them: `body` is the text, or null when the bytes are not UTF-8 and `body_hex` has
/// them; always one of the two.
pub(crate) struct ShownBytes(pub(crate) Proof);

impl Serialize for ShownBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.body();
        let text = std::str::from_utf8(bytes).ok();
        let digits = text.is_none().then(|| hex::encode(bytes));
        let mut fields = serializer.serialize_struct("ShownBytes", 3)?;
        fields.serialize_field("body", &text)?;
        fields.serialize_field("body_hex", &digits)?;
        fields.serialize_field("signature", &self.0.signature().map(|signature| signature.to_string()))?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Money;

    #[derive(Serialize)]
    struct Priced {
        cost: Money,
    }

    #[test]
    fn money_keeps_its_digits_on_the_way_out() {
        let cost = Money::parse("0.1234567890123456789012345678").unwrap();
        let text = serde_json::to_string(&Answer::new(Priced { cost })).unwrap();
        assert_eq!(text, r#"{"ok":true,"cost":0.1234567890123456789012345678}"#);
    }
}
