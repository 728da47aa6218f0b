//! The server name that an outgoing handshake carries.

use std::net::IpAddr;

use rustls_pki_types::ServerName;
use towpath_gateway_core::Endpoint;

/// `outbound_.<port>_._.<host>`, the form of Istio's sidecars in characters that DNS names have.
///
/// Nothing is verified by it. It is different for every endpoint, since sessions are resumed by name.
pub(crate) fn server_name(endpoint: &Endpoint) -> ServerName<'static> {
    let address = endpoint.address;
    let named = |host: &str| ServerName::try_from(format!("outbound_.{}_._.{host}", address.port())).ok();
    let workload = workload(endpoint).and_then(|host| named(&host));
    workload
        .or_else(|| named(&format!("{}.towpath.mesh", dashed(address.ip()))))
        .unwrap_or_else(|| ServerName::IpAddress(address.ip().into()))
}

/// `<name>.<namespace>.<cluster>`, as far as they are known.
fn workload(endpoint: &Endpoint) -> Option<String> {
    let (namespace, name) = endpoint.workload.name.split_once('/')?;
    let cluster = &endpoint.workload.cluster;
    Some(if cluster.is_empty() {
        format!("{name}.{namespace}")
    } else {
        format!("{name}.{namespace}.{cluster}")
    })
}

/// The address as one DNS label.
fn dashed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string().replace('.', "-"),
        // Written out in full: the short form may begin or end with a colon, and a label not with a dash.
        IpAddr::V6(v6) => v6.segments().map(|segment| format!("{segment:x}")).join("-"),
    }
}

#[cfg(test)]
mod tests {
    use towpath_gateway_core::Workload;

    use super::*;

    fn named(address: &str, name: &str, cluster: &str) -> String {
        let mut endpoint = Endpoint::plaintext(address.parse().unwrap());
        endpoint.workload = Workload { name: name.into(), cluster: cluster.into() };
        server_name(&endpoint).to_str().into_owned()
    }

    #[test]
    fn the_name_tells_the_endpoint() {
        let long = format!("shop/{}", "a".repeat(64));
        for (address, workload, cluster, name) in [
            ("127.0.0.1:80", "", "", "outbound_.80_._.127-0-0-1.towpath.mesh"),
            ("[::1]:80", "", "", "outbound_.80_._.0-0-0-0-0-0-0-1.towpath.mesh"),
            ("127.0.0.1:80", "shop/reviews-1", "", "outbound_.80_._.reviews-1.shop"),
            ("127.0.0.1:80", "shop/reviews-1", "east", "outbound_.80_._.reviews-1.shop.east"),
            ("127.0.0.1:80", "no namespace", "", "outbound_.80_._.127-0-0-1.towpath.mesh"),
            ("127.0.0.1:80", "shop/not a name|", "", "outbound_.80_._.127-0-0-1.towpath.mesh"),
            ("127.0.0.1:80", long.as_str(), "", "outbound_.80_._.127-0-0-1.towpath.mesh"),
        ] {
            assert_eq!(named(address, workload, cluster), name);
        }
    }
}
