//! Which proxy calls to the provider go through, by the variables that curl and others go by: `HTTPS_PROXY`,
//! `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in upper or lower case.

use std::ffi::OsString;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

use super::SettingsError;
use crate::{provider::Proxy, secret::Secret};

/// The variables that name proxies; their values may hold a password.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxies {
    https: Option<(&'static str, Secret)>,
    http: Option<(&'static str, Secret)>,
    all: Option<(&'static str, Secret)>,
    none: String,
}

impl Proxies {
    /// Finds the variables; of two cases the upper one counts.
    pub(super) fn find(environment: &[(OsString, OsString)]) -> Self {
        let find = |names: [&'static str; 2]| {
            names.into_iter().find_map(|wanted| {
                let (_, value) = environment.iter().find(|(name, _)| name == wanted)?;
                let value = value.to_str().filter(|value| !value.is_empty())?;
                Some((wanted, Secret::new(value.to_owned())))
            })
        };
        Self {
            https: find(["HTTPS_PROXY", "https_proxy"]),
            http: find(["HTTP_PROXY", "http_proxy"]),
            all: find(["ALL_PROXY", "all_proxy"]),
            none: find(["NO_PROXY", "no_proxy"])
                .map(|(_, hosts)| hosts.reveal().to_owned())
                .unwrap_or_default(),
        }
    }

    /// The proxy on the way to a URL, if there is one.
    ///
    /// # Errors
    /// The variable that would count is not the URL of an HTTP proxy.
    pub(super) fn on_the_way_to(&self, url: &Url) -> Result<Option<Proxy>, SettingsError> {
        let by_scheme = if url.scheme() == "https" { &self.https } else { &self.http };
        let Some((name, value)) = by_scheme.as_ref().or(self.all.as_ref()) else { return Ok(None) };
        let destination: Uri = url
            .as_str()
            .parse()
            .map_err(|error| SettingsError::new("NEXO_BASE_URL", format!("no proxy can take it: {error}")))?;
        let proxy =
            |none: &str| Matcher::builder().all(value.reveal()).no(none).build().intercept(&destination);
        let is_http = |uri: &Uri| uri.scheme_str().is_some_and(|scheme| ["http", "https"].contains(&scheme));
        if !proxy("").is_some_and(|proxy| is_http(proxy.uri())) {
            let right =
                "must be http://host:port or http://user:password@host:port; other proxies are not supported";
            return Err(SettingsError::new(name, right));
        }
        Ok(proxy(&self.none)
            .map(|found| Proxy { uri: found.uri().clone(), authorization: found.basic_auth().cloned() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str, variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let environment: Vec<_> = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let found = Proxies::find(&environment).on_the_way_to(&Url::parse(url).unwrap());
        found.map(|proxy| proxy.map(|proxy| proxy.to_string())).map_err(|error| error.to_string())
    }

    #[test]
    fn the_variables_count_as_for_curl() {
        const PROVIDER: &str = "https://nexoroute.dev/api/v1";
        const SANDBOX: &str = "http://127.0.0.1:4010/api/v1";
        for (url, variables, expected) in [
            (PROVIDER, &[][..], None),
            (PROVIDER, &[("HTTPS_PROXY", "http://proxy:3128")], Some("proxy:3128")),
            (PROVIDER, &[("https_proxy", "proxy:3128")], Some("proxy:3128")),
            (PROVIDER, &[("HTTPS_PROXY", "http://one:1"), ("https_proxy", "http://two:2")], Some("one:1")),
            (PROVIDER, &[("HTTPS_PROXY", ""), ("ALL_PROXY", "http://all:1")], Some("all:1")),
            (PROVIDER, &[("HTTP_PROXY", "http://proxy:3128")], None),
            (SANDBOX, &[("HTTP_PROXY", "http://proxy:3128"), ("HTTPS_PROXY", "x y")], Some("proxy:3128")),
            (SANDBOX, &[("HTTP_PROXY", "http://proxy:3128"), ("NO_PROXY", "10.0.0.0/8, 127.0.0.1")], None),
            (PROVIDER, &[("ALL_PROXY", "http://proxy:3128"), ("no_proxy", ".nexoroute.dev")], None),
            (PROVIDER, &[("ALL_PROXY", "http://proxy:3128"), ("NO_PROXY", "*")], None),
            (PROVIDER, &[("ALL_PROXY", "http://proxy:3128"), ("NO_PROXY", "route.dev")], Some("proxy:3128")),
        ] {
            assert_eq!(proxy(url, variables), Ok(expected.map(str::to_owned)), "{url} {variables:?}");
        }
        let secret = [("HTTPS_PROXY", "http://u:hunter2@proxy:3128")];
        assert_eq!(proxy(PROVIDER, &secret), Ok(Some("proxy:3128".to_owned())));
        for wrong in ["socks5://u:hunter2@proxy", "u hunter2", "ftp://hunter2@proxy"] {
            let problem = proxy(PROVIDER, &[("all_proxy", wrong)]).unwrap_err();
            assert!(problem.starts_with("all_proxy: must be http://host:port or "), "{problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }
}
