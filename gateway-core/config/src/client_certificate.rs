//! The certificate that a Gateway shows to backends (Gateway API, `Gateway.spec.tls.backend.clientCertificateRef`).

use std::collections::HashMap;
use std::sync::Arc;

use towpath_gateway_core::TlsClient;

use crate::certificate_ref::credential;
use crate::compile::Work;
use crate::objects::Stored;
use crate::references::target;
use crate::resources::gateway::GatewaySpec;
use crate::status::{Refusal, Verdict};
use crate::{ObjectName, gateway::GatewayState};

/// A certificate with its key, and the Secret that it is from.
#[derive(Debug, Clone)]
pub(crate) struct ClientCertificate {
    pub(crate) secret: ObjectName,
    pub(crate) client: Arc<TlsClient>,
}

/// What a Gateway shows. One whose reference leads nowhere shows nothing: servers that ask for a certificate refuse it.
pub(crate) fn judge(
    work: &mut Work<'_>,
    gateway: &Stored<GatewaySpec>,
) -> (Option<ClientCertificate>, Verdict) {
    let backend = gateway.spec.tls.as_ref().and_then(|tls| tls.backend.as_ref());
    let Some(reference) = backend.and_then(|backend| backend.client_certificate_ref.as_ref()) else {
        return (None, Ok(()));
    };
    let (credential, resolved) = match credential(work, gateway, reference, "InvalidClientCertificateRef") {
        Ok(credential) => (Some(credential), Ok(())),
        Err((kept, refusal)) => {
            let message = format!("`tls.backend`: {}", refusal.message);
            work.problems.push(gateway.error(reference.name.referenced, message.clone()));
            (kept, Err(Refusal::new(refusal.reason, message)))
        }
    };
    let shown = credential.map(|credential| ClientCertificate {
        secret: target(&gateway.name.namespace, reference),
        client: Arc::new(TlsClient {
            chain: credential.chain.iter().map(|certificate| certificate.as_ref().into()).collect(),
            key: credential.key.secret_der().to_vec(),
        }),
    });
    (shown, resolved)
}

/// A route, compiled once for each certificate that its Gateways show: backends are spoken to with it.
pub(crate) struct ByClient<T>(HashMap<Option<ObjectName>, T>);

impl<T> ByClient<T> {
    pub(crate) fn new() -> Self {
        Self(HashMap::new())
    }

    /// What there is for this Gateway; compiled if it is the first with its certificate.
    pub(crate) fn of<'a>(
        &mut self,
        work: &mut Work<'a>,
        gateway: &GatewayState<'_>,
        compile: impl FnOnce(&mut Work<'a>) -> T,
    ) -> &T {
        let secret = gateway.client.as_ref().map(|shown| shown.secret.clone());
        self.0.entry(secret).or_insert_with(|| {
            work.backends.client.clone_from(&gateway.client);
            let compiled = compile(work);
            work.backends.client = None;
            compiled
        })
    }
}
