//! Signs that a secret was changed on its way here: quotes, white space, variables that were not expanded.

use url::Url;

use super::layers::{Given, Value};

/// What looks wrong with a secret that was given, after the name by which it was; never what it is.
pub(super) fn warning(given: &Given) -> Option<String> {
    let Value::Secret(secret) = &given.value else { return None };
    let text = secret.reveal();
    if let Some(sign) = sign(given.known.env, text) {
        return Some(format!("{} {sign}", given.name()));
    }
    let password = Url::parse(text).ok().and_then(|url| url.password().map(str::to_owned));
    let password = percent_encoding::percent_decode_str(password.as_deref()?).decode_utf8().ok()?;
    Some(format!("the password in {} {}", given.name(), sign(given.known.env, &password)?))
}

/// The first sign that a secret is not as it was meant to be. Digits that have the length of a digest are none: secrets
/// are often made by `openssl rand -hex 32`.
pub(super) fn sign(variable: &str, text: &str) -> Option<&'static str> {
    const QUOTES: [(char, char); 5] = [('"', '"'), ('\'', '\''), ('`', '`'), ('“', '”'), ('‘', '’')];
    let starts =
        |prefix: &str| text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    let inner = |(open, close): (char, char)| text.strip_prefix(open)?.strip_suffix(close);
    if text.starts_with('\u{feff}') {
        Some("begins with a byte order mark, which counts as part of it")
    } else if text.trim() != text {
        Some("begins or ends with white space, which counts as part of it")
    } else if QUOTES.into_iter().any(|quotes| inner(quotes).is_some()) {
        Some("stands in quotes, which count as part of it; `docker run --env-file` keeps them")
    } else if text.ends_with("\\n") || text.ends_with("\\r") {
        Some("ends with a backslash and a letter where a line break was meant; they count as part of it")
    } else if starts("bearer ") || starts("bearer:") {
        Some("begins with `Bearer`, which is no part of a token")
    } else if starts("sha256=") {
        Some("begins with `sha256=`, as a signature does, not a secret")
    } else if text.strip_prefix(variable).is_some_and(|rest| rest.starts_with('=')) {
        Some("begins with the name of its own variable, which counts as part of it")
    } else if is_template(text) {
        Some("looks like a variable whose value was not put in")
    } else if text.chars().any(is_invisible) {
        Some("has characters that do not print, which count as part of it")
    } else {
        None
    }
}

/// `${NAME}`, `$(NAME)` or `{{ name }}` as a whole, `${NAME}` anywhere, `$NAME` in capitals.
fn is_template(text: &str) -> bool {
    let is_whole = |open: &str, close: char| {
        text.strip_prefix(open).and_then(|rest| rest.strip_suffix(close)).is_some_and(|name| !name.is_empty())
    };
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    };
    let holds = text.split_once("${").and_then(|(_, rest)| rest.split_once('}')).map(|(name, _)| name);
    is_whole("${", '}')
        || is_whole("$(", ')')
        || is_whole("{{", '}')
        || holds.is_some_and(is_name)
        || text.strip_prefix('$').is_some_and(is_name)
}

fn is_invisible(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_mangled_is_noticed() {
        for (text, part) in [
            ("\"whsec_1\"", "in quotes"),
            ("'whsec_1'", "in quotes"),
            ("“whsec_1”", "in quotes"),
            (" whsec_1", "white space"),
            ("whsec_1\n", "white space"),
            ("\"whsec_1\"\n", "white space"),
            ("whsec_1\\n", "backslash"),
            ("Bearer abcdefghijklmnop", "`Bearer`"),
            ("sha256=00ff", "`sha256=`"),
            ("\u{feff}whsec_1", "byte order mark"),
            ("whsec\u{200b}_1", "do not print"),
            ("whsec\u{1}_1", "do not print"),
            ("${SECRET}", "not put in"),
            ("${secret:-}", "not put in"),
            ("prefix-${SECRET}", "not put in"),
            ("$SECRET", "not put in"),
            ("$(SECRET)", "not put in"),
            ("{{ .Values.secret }}", "not put in"),
            ("NEXO_KEY=sk_1", "its own variable"),
        ] {
            let sign = sign("NEXO_KEY", text).unwrap_or_else(|| panic!("{text:?}"));
            assert!(sign.contains(part), "{text:?}: {sign}");
        }
    }

    #[test]
    fn what_is_only_odd_is_left_alone() {
        for text in [
            "whsec_1",
            "it's",
            "\"",
            "a \"quoted\" word",
            "$ecret",
            "pa$$word",
            "a{b}c",
            "a\\nb",
            "bearer",
            "mật khẩu của tôi",
            "6f1ed002ab5595859014ebf0951522d96f1ed002ab5595859014ebf0951522d9",
            "dGhpcyBpcyBub3QgYSBkaWdlc3QgYXQgYWxsIG5vIG5vIQ==",
        ] {
            assert_eq!(sign("NEXO_KEY", text), None, "{text:?}");
        }
    }
}
