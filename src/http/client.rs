//! Whose request it is: the peer's address or, where a proxy in front is trusted, the one that the proxy names.
//!
//! Lives here: reading `X-Forwarded-For`. Does not: what an address may do (`strangers`).

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// Where proxies note whom they speak for.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address that a request comes from.
///
/// Each proxy adds the address of whoever spoke to it at the right. What stands to the left of the first address that is
/// not a trusted proxy's was written by that address, and may be anything.
pub(super) fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    if trusted.is_empty() {
        return client;
    }
    let values = headers.get_all(FORWARDED_FOR).iter().rev();
    let mut named = values.flat_map(|value| value.to_str().unwrap_or_default().rsplit(','));
    while trusted.iter().any(|net| net.contains(&client)) {
        let Some(next) = named.next().and_then(|text| parse(text.trim())) else { break };
        client = next;
    }
    client
}

/// An address, with or without a port.
fn parse(text: &str) -> Option<IpAddr> {
    let address = text.parse().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(peer: &str, trusted: &[&str], forwarded: &[&'static str]) -> String {
        let headers: HeaderMap =
            forwarded.iter().map(|value| (FORWARDED_FOR, HeaderValue::from_static(value))).collect();
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn nobody_is_trusted_unless_told() {
        assert_eq!(client("10.0.0.1", &[], &["203.0.113.9"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["10.0.0.2/32"], &["203.0.113.9"]), "10.0.0.1");
    }

    #[test]
    fn a_trusted_proxy_names_the_client_and_nobody_further_left_does() {
        let net = ["10.0.0.0/8", "fd00::/8"];
        assert_eq!(client("10.0.0.1", &net, &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("::ffff:10.0.0.1", &net, &["198.51.100.7, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &net, &["198.51.100.7", "203.0.113.9, 10.9.9.9"]), "203.0.113.9");
        assert_eq!(client("fd00::1", &net, &["[2001:db8::5]:4711"]), "2001:db8::5");
        assert_eq!(client("10.0.0.1", &net, &["203.0.113.9:80"]), "203.0.113.9");
    }

    #[test]
    fn what_is_no_address_counts_as_nothing() {
        for forwarded in [&[][..], &[""], &["unknown"], &["203.0.113.9, "], &["203.0.113.9, _hidden"]] {
            assert_eq!(client("10.0.0.1", &["10.0.0.0/8"], forwarded), "10.0.0.1", "{forwarded:?}");
        }
        assert_eq!(client("10.0.0.1", &["10.0.0.0/8"], &["garbage, 10.0.0.3"]), "10.0.0.3");
    }
}
