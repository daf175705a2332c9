//! What is wrong with a signature: the ways in which people get it wrong, tried one by one.
//!
//! Lives here: how a header is miswritten, which wrong keys and bodies are in use. Does not: HMAC (`signature`).

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::bodies;
use crate::{
    secret::Secret,
    signature::{Digest, Signature, SigningKey},
};

/// A secret and what its setting is called.
type Named<'a> = (&'static str, &'a Secret);

/// Says which secret made the signature, or what is wrong with it. Neither names a secret or a right signature.
pub(super) fn diagnose(body: &[u8], header: &str, secrets: &[Named<'_>]) -> Result<String, String> {
    let Written { signature, mut faults } = Written::read(header);
    let Some(signature) = signature else { return Err(faults.join("; ")) };
    let found = secrets.iter().find_map(|(name, secret)| Some((name, explain(body, signature, secret)?)));
    let Some((name, found)) = found else {
        faults.push(unkeyed(body, signature, secrets).unwrap_or_else(|| UNEXPLAINED.to_owned()));
        return Err(faults.join("; "));
    };
    faults.extend(found);
    if faults.is_empty() {
        Ok(format!("signed with {name}"))
    } else {
        Err(format!("{} (but for that, signed with {name})", faults.join("; ")))
    }
}

const UNEXPLAINED: &str =
    "made with another secret, or over another body: what is signed are the raw bytes, before any parsing";

/// A header's value, read with more patience than the service has.
struct Written {
    signature: Option<Signature>,
    /// Why the service refuses it.
    faults: Vec<String>,
}

impl Written {
    fn read(header: &str) -> Self {
        let mut faults = Vec::new();
        let value = unwrapped(header, &mut faults);
        let digits = match value.split_once(['=', ':']) {
            Some(("sha256", digits)) if value.starts_with("sha256=") => digits,
            Some((scheme, digits)) if scheme.len() <= 12 && !digits.is_empty() => {
                let start = &value[..=scheme.len()];
                faults.push(format!("the value begins with `{start}`, not with `sha256=`"));
                digits
            }
            _ => {
                faults.push("`sha256=` is missing at the value's start".to_owned());
                value
            }
        };
        if digits.bytes().any(|byte| byte.is_ascii_uppercase()) && hex::decode(digits).is_ok() {
            faults.push("the hex digits are in upper case; they must be in lower case".to_owned());
        }
        let decoded = hex::decode(digits).ok().or_else(|| {
            let decoded = BASE64_STANDARD.decode(digits).ok().filter(|mac| mac.len() == 32)?;
            faults.push("the signature is in base64; it must be in hex".to_owned());
            Some(decoded)
        });
        let mac = decoded.and_then(|mac| <[u8; 32]>::try_from(mac).ok());
        if mac.is_none() {
            let length = digits.chars().count();
            faults.push(format!(
                "after `sha256=` must come 64 hex digits, the HMAC-SHA256; here are {length} characters"
            ));
        }
        Self { signature: mac.map(Signature::from_bytes), faults }
    }
}

/// The value without what was copied along with it.
fn unwrapped<'a>(header: &'a str, faults: &mut Vec<String>) -> &'a str {
    const NAME: &str = "x-nexo-signature:";
    let mut value = header.trim();
    let mut space = value != header;
    if value.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)) {
        faults.push("the header's name was copied along with its value".to_owned());
        value = value[NAME.len()..].trim();
    }
    let unquoted = value.trim_matches(['"', '\'', '`']);
    if unquoted != value {
        faults.push("quotes were copied along with the value".to_owned());
        value = unquoted.trim();
        space |= value != unquoted;
    }
    if space {
        faults.push("white space was copied along with the value".to_owned());
    }
    value
}

/// What has to be wrong with key and body for this to be the signature; `None` when nothing known explains it.
fn explain(body: &[u8], signature: Signature, secret: &Secret) -> Option<Vec<String>> {
    let bodies = bodies::variants(body);
    keys(secret).into_iter().find_map(|(key_faults, key)| {
        let (body_fault, _) = bodies.iter().find(|(_, body)| key.sign(body) == signature)?;
        Some(key_faults.into_iter().chain(body_fault.clone()).collect())
    })
}

/// The right key, then the wrong ones that are known to be in use, each with what is wrong.
fn keys(secret: &Secret) -> Vec<(Vec<String>, SigningKey)> {
    let configured = secret.reveal();
    let texts = [
        (None, configured.to_owned()),
        (
            Some("the configured secret has white space around it that the signer's has not"),
            trimmed(configured),
        ),
        (Some("the signer's secret ends with a newline"), format!("{configured}\n")),
        (Some("the signer's secret ends with CR and LF"), format!("{configured}\r\n")),
        (Some("the signer's secret ends with a space"), format!("{configured} ")),
        (Some("the signer's secret begins with a space"), format!(" {configured}")),
        (Some("the signer's secret has spaces around it"), format!(" {configured} ")),
        (Some("the signer's secret stands in quotes"), format!("\"{configured}\"")),
        (Some("the configured secret stands in quotes"), configured.trim_matches(['"', '\'']).to_owned()),
    ];
    let of_texts = texts.into_iter().flat_map(|(fault, text)| derived(fault, &text));
    let digest = hex::decode(configured).ok().or_else(|| BASE64_STANDARD.decode(configured).ok());
    let hashed = digest.filter(|digest| digest.len() == 32).map(|digest| {
        let fault = "the configured secret is the SHA-256 of the signer's; the plaintext secret is expected";
        (vec![fault.to_owned()], SigningKey::from_key(&digest))
    });
    of_texts.chain(hashed).collect()
}

fn trimmed(text: &str) -> String {
    text.trim().to_owned()
}

/// What people make of a secret's text to get an HMAC key.
fn derived(fault: Option<&str>, text: &str) -> [(Vec<String>, SigningKey); 5] {
    let digest = Digest::of(text.as_bytes());
    let hex = hex::encode(digest.as_bytes());
    let wrong = |used: &str, key: &[u8]| {
        let problem =
            format!("{used} was used as the HMAC key; the key is the 32 bytes of the secret's SHA-256");
        (fault.map(str::to_owned).into_iter().chain([problem]).collect(), SigningKey::from_key(key))
    };
    [
        (fault.map(str::to_owned).into_iter().collect(), SigningKey::from_key(digest.as_bytes())),
        wrong("the secret itself", text.as_bytes()),
        wrong("the hex text of the secret's SHA-256", hex.as_bytes()),
        wrong("the upper-case hex text of the secret's SHA-256", hex.to_uppercase().as_bytes()),
        wrong(
            "the base64 text of the secret's SHA-256",
            BASE64_STANDARD.encode(digest.as_bytes()).as_bytes(),
        ),
    ]
}

/// The name of a digest without a key, if that is what the signature is.
fn unkeyed(body: &[u8], signature: Signature, secrets: &[Named<'_>]) -> Option<String> {
    let is = |bytes: &[u8]| Digest::of(bytes).as_bytes() == signature.as_bytes();
    if is(body) {
        return Some("a plain SHA-256 of the body, without any secret; it must be an HMAC-SHA256".to_owned());
    }
    secrets.iter().find_map(|(name, secret)| {
        let secret = secret.reveal().as_bytes();
        let is_joined = is(&[secret, body].concat()) || is(&[body, secret].concat());
        is_joined.then(|| format!("a plain SHA-256 of {name} and body in a row; it must be an HMAC-SHA256"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_test_1";
    const BODY: &str = r#"{"type":"otp.delivered","id":"8f2e1c4d","phone":"+84981234567","carrier":"viettel","status":"delivered","cost":0.022,"error_code":null,"created_at":"2026-05-26T10:00:00Z","completed_at":"2026-05-26T10:00:25Z"}"#;

    fn sign(key: &[u8], body: &str) -> String {
        SigningKey::from_key(key).sign(body.as_bytes()).to_string()
    }

    fn signed_with(secret: &str) -> String {
        SigningKey::from_secret(&Secret::new(secret.into())).sign(BODY.as_bytes()).to_string()
    }

    fn diagnosed(secret: &str, body: &str, header: &str) -> Result<String, String> {
        let (current, previous) = (Secret::new(secret.into()), Secret::new("the one before".into()));
        let secrets = [("webhook.secret", &current), ("webhook.secret_previous", &previous)];
        let diagnosis = diagnose(body.as_bytes(), header, &secrets);
        let text = diagnosis.as_ref().unwrap_or_else(|wrong| wrong);
        let right = signed_with(secret);
        assert!(!text.contains(SECRET) && !text.contains(right.trim_start_matches("sha256=")), "{text}");
        diagnosis
    }

    fn wrong(body: &str, header: &str, expected: &str) {
        let wrong = diagnosed(SECRET, body, header).unwrap_err();
        assert!(wrong.contains(expected), "{wrong}\n{expected}");
    }

    #[test]
    fn a_right_signature_is_right_under_either_secret() {
        assert_eq!(diagnosed(SECRET, BODY, &signed_with(SECRET)).unwrap(), "signed with webhook.secret");
        let previous = diagnosed(SECRET, BODY, &signed_with("the one before")).unwrap();
        assert_eq!(previous, "signed with webhook.secret_previous");
    }

    #[test]
    fn a_miswritten_header_is_told() {
        let right = signed_with(SECRET);
        let digits = right.trim_start_matches("sha256=");
        let base64 = BASE64_STANDARD.encode(hex::decode(digits).unwrap());
        for (header, expected) in [
            (format!("sha256={}", digits.to_uppercase()), "in upper case"),
            (digits.to_owned(), "`sha256=` is missing"),
            (format!("SHA256={digits}"), "begins with `SHA256=`"),
            (format!("sha256:{digits}"), "begins with `sha256:`"),
            (format!("v1={digits}"), "begins with `v1=`"),
            (format!(" {right}"), "white space was copied"),
            (format!("{right}\r\n"), "white space was copied"),
            (format!("\"{right}\""), "quotes were copied"),
            (format!("X-NEXO-Signature: {right}"), "header's name was copied"),
            (format!("sha256={base64}"), "in base64"),
            (base64, "in base64"),
        ] {
            wrong(BODY, &header, expected);
            wrong(BODY, &header, "(but for that, signed with webhook.secret)");
        }
        wrong(BODY, &right[..70], "must come 64 hex digits, the HMAC-SHA256; here are 63 characters");
        wrong(BODY, "", "`sha256=` is missing");
        wrong(BODY, "sha256=", "here are");
    }

    #[test]
    fn a_wrong_key_is_told() {
        let digest = Digest::of(SECRET.as_bytes());
        let hex = hex::encode(digest.as_bytes());
        wrong(BODY, &sign(hex.as_bytes(), BODY), "the hex text of the secret's SHA-256 was used");
        wrong(BODY, &sign(SECRET.as_bytes(), BODY), "the secret itself was used");
        wrong(BODY, &signed_with("whsec_test_1\n"), "the signer's secret ends with a newline");
        wrong(BODY, &signed_with(" whsec_test_1 "), "the signer's secret has spaces around it");
        wrong(BODY, &signed_with("\"whsec_test_1\""), "the signer's secret stands in quotes");
        wrong(BODY, &sign(b"whsec_test_1\n", BODY), "ends with a newline; the secret itself was used");
        let configured = diagnosed("whsec_test_1\n", BODY, &signed_with(SECRET)).unwrap_err();
        assert!(configured.contains("the configured secret has white space around it"), "{configured}");
        for digest in [hex, BASE64_STANDARD.encode(digest.as_bytes())] {
            let hashed = diagnosed(&digest, BODY, &signed_with(SECRET)).unwrap_err();
            assert!(hashed.contains("the configured secret is the SHA-256 of the signer's"), "{hashed}");
        }
    }

    #[test]
    fn a_changed_body_is_told() {
        let right = signed_with(SECRET);
        wrong(&format!("{BODY}\n"), &right, "the file has a newline at its end");
        wrong(&format!("{BODY}\r\n"), &right, "the file has a newline at its end");
        wrong(&format!("\u{feff}{BODY}"), &right, "byte order mark");
        let sorted = serde_json::from_str::<serde_json::Value>(BODY).unwrap();
        let pretty = serde_json::to_string_pretty(&sorted).unwrap();
        wrong(&sorted.to_string(), &right, "signed is compact, in the guide's order");
        wrong(&pretty, &right, "signed is compact, in the guide's order");
        let key = *Digest::of(SECRET.as_bytes()).as_bytes();
        wrong(BODY, &sign(&key, &format!("{BODY}\n")), "the signed body ends with a newline");
        wrong(BODY, &sign(&key, &pretty), "signed is pretty, by two spaces, in alphabetical order");
        wrong(BODY, &sign(&key, &BODY.replace("\":", "\": ").replace(',', ", ")), "as Python does it");
        wrong(&pretty, &sign(&key, &pretty.replace('\n', "\r\n")), "the signed body's with CR and LF");
        wrong(&pretty.replace('\n', "\r\n"), &sign(&key, &pretty), "the signed body's with LF alone");
        wrong(BODY, &sign(&key, ""), "an empty body was signed");
    }

    #[test]
    fn a_digest_without_a_key_is_told() {
        let plain = |text: &str| format!("sha256={}", hex::encode(Digest::of(text.as_bytes()).as_bytes()));
        wrong(BODY, &plain(BODY), "a plain SHA-256 of the body, without any secret");
        wrong(
            BODY,
            &plain(&format!("{SECRET}{BODY}")),
            "a plain SHA-256 of webhook.secret and body in a row",
        );
    }

    #[test]
    fn two_mistakes_at_once_are_both_told() {
        let raw = sign(SECRET.as_bytes(), BODY);
        wrong(&format!("{BODY}\n"), &raw, "the secret itself was used");
        wrong(&format!("{BODY}\n"), &raw, "the file has a newline at its end");
    }

    #[test]
    fn what_nothing_explains_is_another_secret_or_body() {
        wrong(BODY, &signed_with("other"), "made with another secret, or over another body");
        wrong(
            &BODY.replace("22", "23"),
            &signed_with(SECRET),
            "made with another secret, or over another body",
        );
        wrong("\0\u{fffd} no JSON", &signed_with(SECRET), "made with another secret, or over another body");
    }
}
