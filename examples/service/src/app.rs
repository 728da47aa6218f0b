//! Which path is answered by what.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::body::Body;
use crate::{Args, chat, page, stream, ws};

/// The application. Clones share its settings.
#[derive(Debug, Clone)]
pub struct App(Arc<Args>);

impl App {
    /// The application that `args` describe.
    pub fn new(args: Args) -> Self {
        Self(Arc::new(args))
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let args = &*self.0;
        match request.uri().path() {
            "/" | "/page" => page::whole(args, &request).await,
            "/upload" => stream::upload(request.into_body()).await,
            "/download" => stream::download(request.uri()),
            "/break" => stream::broken(request.uri()),
            "/slow" => page::slow(args, &request).await,
            "/ws" => ws::upgrade(request),
            "/bookshop.Chat/Echo" => chat::echo(request.into_body()),
            _ => page::seen(args, &request).await,
        }
    }
}
