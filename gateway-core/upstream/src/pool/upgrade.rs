//! Connections that leave HTTP behind (RFC 9110 section 7.8), such as WebSocket.

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use towpath_gateway_core::{Body, BoxIo, Fault, Prefixed, Reason, Request, Response};
use towpath_http1::hop;

/// A client's wish to go on in another protocol, which its connection allows.
pub(super) struct Upgrade {
    client: OnUpgrade,
    protocols: Option<HeaderValue>,
}

impl Upgrade {
    /// Takes the client's connection out of the request, if it asks for an upgrade that may be passed on.
    ///
    /// HTTP/2 over cleartext is never among them: it would carry requests past every layer of this proxy.
    pub(super) fn take(request: &mut Request) -> Option<Self> {
        let client = request.extensions_mut().remove::<OnUpgrade>()?;
        let headers = request.headers();
        if !hop::asks_to_upgrade(headers) || headers.get_all(UPGRADE).iter().count() != 1 {
            return None;
        }
        Some(Self { client, protocols: headers.get(UPGRADE).cloned() })
    }

    /// Joins both connections once the server has agreed. The response goes to the client first; the bytes follow.
    pub(super) fn join(self, headers: HeaderMap, server: Prefixed<BoxIo>) -> Result<Response, Fault> {
        let agreed = headers.get(UPGRADE).cloned();
        if !self.offers(agreed.as_ref()) {
            return Err(
                Fault::new(Reason::UpstreamInvalid).with_detail("101 to a protocol that was not offered")
            );
        }
        tokio::spawn(tunnel(self.client, server));
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = switching(headers, agreed);
        Ok(answer)
    }

    fn offers(&self, agreed: Option<&HeaderValue>) -> bool {
        let text =
            |value: Option<&HeaderValue>| value.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (Some(offered), Some(agreed)) = (text(self.protocols.as_ref()), text(agreed)) else {
            return false;
        };
        offered.split(',').any(|protocol| protocol.trim().eq_ignore_ascii_case(agreed.trim()))
    }
}

fn switching(mut headers: HeaderMap, protocol: Option<HeaderValue>) -> HeaderMap {
    hop::strip(&mut headers);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.extend(protocol.map(|protocol| (UPGRADE, protocol)));
    headers
}

async fn tunnel(client: OnUpgrade, mut server: Prefixed<BoxIo>) {
    let result = match client.await {
        Ok(client) => copy_bidirectional(&mut TokioIo::new(client), &mut server).await,
        Err(error) => Err(std::io::Error::other(error)),
    };
    if let Err(error) = result {
        tracing::debug!(%error, "tunnel broke off");
    }
}
