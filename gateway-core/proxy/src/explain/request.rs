//! The request that is asked about, as the command line gives it.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use towpath_gateway_core::{Connection, Context, TlsFacts, TlsVersion};

use crate::Failure;

/// `METHOD URL`, or a URL alone for `GET`.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) method: Method,
    pub(crate) url: Uri,
    pub(crate) https: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let (method, url) = match (words.next(), words.next(), words.next()) {
            (Some(url), None, _) => ("GET", url),
            (Some(method), Some(url), None) => (method, url),
            _ => return Err("write METHOD URL, for instance 'GET http://shop.example/books?page=2'".into()),
        };
        let method = method.parse().map_err(|_| format!("`{method}` is not a method"))?;
        if method == Method::CONNECT {
            return Err("CONNECT names a host and port and no URL: no rule takes it".into());
        }
        let url: Uri = url.parse().map_err(|error| format!("`{url}` is not a URL: {error}"))?;
        let https = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("`{url}` does not begin with http:// or https://")),
        };
        let authority = url.authority().ok_or("the URL names no host")?;
        if authority.as_str().contains('@') {
            return Err("a URL with a user name is not sent: give the header by -H".into());
        }
        let (host, port) =
            (authority.host().to_owned(), authority.port_u16().unwrap_or(if https { 443 } else { 80 }));
        Ok(Self { method, url, https, host, port })
    }
}

/// `Name: value`.
#[derive(Debug, Clone)]
pub(crate) struct HeaderLine(pub(crate) HeaderName, pub(crate) HeaderValue);

impl FromStr for HeaderLine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("write 'name: value'")?;
        let name = name.trim().parse().map_err(|_| format!("`{name}` is not the name of a header"))?;
        let value = value
            .trim()
            .parse()
            .map_err(|_| format!("the value of `{name}` holds characters that no header may"))?;
        Ok(Self(name, value))
    }
}

/// The name that a client asks for in its TLS hello: no address is one (RFC 6066 section 3).
pub(crate) fn server_name<'a>(line: &'a Line, given: Option<&'a str>) -> Option<&'a str> {
    let bare = line.host.trim_start_matches('[').trim_end_matches(']');
    let name = given.or_else(|| (line.https && bare.parse::<IpAddr>().is_err()).then_some(&*line.host));
    // The dot of the root is not sent (RFC 6066 section 3).
    name.map(|name| name.strip_suffix('.').unwrap_or(name))
}

/// The request as a client of HTTP/1.1 sends it to the socket at `address`.
pub(crate) fn request(
    line: &Line,
    headers: &[HeaderLine],
    server_name: Option<&str>,
    address: SocketAddr,
) -> Result<Request<()>, Failure> {
    let target = line.url.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::builder().method(line.method.clone()).uri(target).body(())?;
    let own_host = headers.iter().any(|HeaderLine(name, _)| name == HOST);
    let host = line.url.authority().filter(|_| !own_host).map(|authority| authority.as_str().parse());
    if let Some(host) = host.transpose()? {
        request.headers_mut().insert(HOST, host);
    }
    for HeaderLine(name, value) in headers {
        request.headers_mut().append(name, value.clone());
    }
    let client = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0);
    let mut connection = Connection::plaintext(client, address);
    connection.tls = line.https.then(|| TlsFacts {
        version: TlsVersion::Tls13,
        server_name: server_name.map(Arc::from),
        alpn: None,
        identity: None,
        forwarded_cert: None,
    });
    request.extensions_mut().insert(Context::on(Arc::new(connection)));
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_or_say_what_they_should_be() {
        let line: Line = "PUT https://a.example/x?y".parse().unwrap();
        assert_eq!(
            (line.method.as_str(), line.https, &*line.host, line.port),
            ("PUT", true, "a.example", 443)
        );
        let line: Line = " http://a:81 ".parse().unwrap();
        assert_eq!((line.method.as_str(), line.port, line.url.path()), ("GET", 81, "/"));
        for (text, says) in [
            ("", "METHOD URL"),
            ("GET http://a /", "METHOD URL"),
            ("GET /path", "http://"),
            ("GET ftp://a/", "http://"),
            ("G@T http://a/", "not a method"),
            ("GET http://u@a/", "user name"),
            ("GET http://[/", "not a URL"),
        ] {
            let error = text.parse::<Line>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        for (text, says) in [("x", "name: value"), ("a b: c", "not the name"), ("a: \u{1}", "no header may")]
        {
            let error = text.parse::<HeaderLine>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_host_that_is_given_takes_the_place_of_the_urls() {
        let line: Line = "https://a.example:8443/".parse().unwrap();
        let address = "127.0.0.1:443".parse().unwrap();
        let made = request(&line, &[], server_name(&line, None), address).unwrap();
        assert_eq!(made.headers()[HOST], "a.example:8443");
        let context = Context::find(made.extensions()).unwrap();
        assert_eq!(context.connection().unwrap().server_name(), Some("a.example"));
        let made = request(&line, &["host: b".parse().unwrap()], None, address).unwrap();
        assert_eq!(made.headers().get_all(HOST).iter().collect::<Vec<_>>(), ["b"]);
        assert_eq!(server_name(&"https://[::1]/".parse().unwrap(), None), None);
    }
}
