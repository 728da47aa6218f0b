//! The client of the SPIFFE Workload API: one stream of messages, each of which takes the place of the one before.

use std::convert::Infallible;
use std::io;

use http::{HeaderMap, HeaderValue, Uri};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use towpath_ca::{Keeper, RenewalEvent, RenewalSettings};
use towpath_mesh_mtls::Identity;

use crate::WorkloadEndpoint;
use crate::grpc::{self, Answer, CallError, Code};
use crate::svids::{self, Unusable, X509SvidRequest, X509SvidResponse};

/// The authority is of no meaning on a socket of this host.
const METHOD: &str = "http://localhost/SpiffeWorkloadAPI/FetchX509SVID";

/// The longest message that is taken, in bytes: that of gRPC itself. Bundles of many trust domains may be in it.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// Keeps the credential of `identity` as the Workload API at `endpoint` gives it, for as long as it is polled.
///
/// The SVID of [`RenewalSettings::wanted`] is taken, else the first. Each message takes effect at once; one that cannot be
/// used keeps the credential before. An agent that is away is asked again with growing pauses. As the standard has it, a
/// credential that the agent takes back (`PERMISSION_DENIED`, or a message without the wanted SVID) is used no more, and a
/// client that is told that it is at fault (`INVALID_ARGUMENT`, `UNIMPLEMENTED`) stops asking.
/// [`RenewalSettings::timeout`] counts from the connection to the first message. Every step is reported to `on_event`.
pub async fn follow(
    identity: Identity,
    endpoint: WorkloadEndpoint,
    settings: RenewalSettings,
    on_event: impl FnMut(RenewalEvent) + Send,
) -> Infallible {
    let mut keeper = Keeper::new(identity, settings, on_event);
    loop {
        let end = stream(&endpoint, &mut keeper).await;
        let why = format!("the Workload API at {endpoint}: {end}");
        if end.is_final() {
            keeper.stopped(why);
            return keeper.watch().await;
        }
        if end.takes_back() {
            keeper.withdraw();
        }
        let next_try = keeper.failed(why);
        keeper.wait(next_try).await;
    }
}

/// How a stream ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("cannot be reached: {0}")]
    Connect(#[from] io::Error),
    #[error("{}{}", .0, advice(.0))]
    Call(#[from] CallError),
    #[error(transparent)]
    Unusable(#[from] Unusable),
    #[error("did not answer within {0:?}")]
    Timeout(std::time::Duration),
    #[error("the agent ended the stream")]
    Closed,
}

impl End {
    fn code(&self) -> Option<Code> {
        match self {
            Self::Call(CallError::Status { code, .. }) => Some(*code),
            _ => None,
        }
    }

    fn is_final(&self) -> bool {
        matches!(self.code(), Some(Code::INVALID_ARGUMENT | Code::UNIMPLEMENTED))
    }

    fn takes_back(&self) -> bool {
        self.code() == Some(Code::PERMISSION_DENIED)
            || matches!(self, Self::Unusable(Unusable::NotEntitled { .. }))
    }
}

fn advice(why: &CallError) -> &'static str {
    match why {
        CallError::Status { code: Code::PERMISSION_DENIED, .. } => {
            "; the agent has no identity for this process: look at the registration entries"
        }
        CallError::Status { code: Code::UNAVAILABLE, .. } => "; the agent is not ready",
        CallError::Status { code: Code::INVALID_ARGUMENT | Code::UNIMPLEMENTED, .. } => {
            "; it is not asked again: see that an agent of the Workload API is there, and start this process anew"
        }
        _ => "",
    }
}

/// Adopts what comes, until something ends the stream.
async fn stream<F: FnMut(RenewalEvent)>(endpoint: &WorkloadEndpoint, keeper: &mut Keeper<F>) -> End {
    let patience = keeper.settings().timeout;
    let mut answer = match timeout(patience, open(endpoint)).await {
        Ok(Ok((message, answer))) => match adopt(message, keeper) {
            Ok(()) => answer,
            Err(why) => return why.into(),
        },
        Ok(Err(why)) => return why,
        Err(_) => return End::Timeout(patience),
    };
    loop {
        let message = tokio::select! {
            message = answer.next() => message,
            never = keeper.watch() => match never {},
        };
        match message {
            Ok(Some(message)) => {
                if let Err(why) = adopt(message, keeper) {
                    return why.into();
                }
            }
            Ok(None) => return End::Closed,
            Err(why) => return why.into(),
        }
    }
}

/// The first message, which an agent sends at once, and those that follow.
async fn open(endpoint: &WorkloadEndpoint) -> Result<(X509SvidResponse, Answer<X509SvidResponse>), End> {
    let mut metadata = HeaderMap::new();
    // Shows that no other client was led here by a forged request (SPIFFE Workload Endpoint, section 3).
    metadata.insert("workload.spiffe.io", HeaderValue::from_static("true"));
    let (uri, question) = (Uri::from_static(METHOD), X509SvidRequest {});
    let mut answer = match endpoint {
        WorkloadEndpoint::Unix(path) => {
            grpc::call(UnixStream::connect(path).await?, uri, metadata, &question, MAX_MESSAGE).await?
        }
        WorkloadEndpoint::Tcp(address) => {
            grpc::call(TcpStream::connect(address).await?, uri, metadata, &question, MAX_MESSAGE).await?
        }
    };
    let message = answer.next().await?.ok_or(End::Closed)?;
    Ok((message, answer))
}

fn adopt<F: FnMut(RenewalEvent)>(message: X509SvidResponse, keeper: &mut Keeper<F>) -> Result<(), Unusable> {
    let credential = svids::credential(message, keeper.settings().wanted.as_ref(), keeper.now())?;
    keeper.adopt(credential);
    Ok(())
}
