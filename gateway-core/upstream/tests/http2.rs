//! The pool over HTTP/2.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use http::{HeaderMap, Response as HttpResponse};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use support::{count, get, pool, post, raw, send, serve, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Barrier, mpsc};
use towpath_gateway_core::{Body, Endpoint, Fault, Protocol, Reason, Replay};
use towpath_upstream::{EDGE_CONNECT_TIMEOUT, Pool, PoolSettings, TcpConnector};

#[tokio::test]
async fn fifty_requests_share_one_connection() {
    // No request is answered before all have come: they must be in flight together.
    let all = Arc::new(Barrier::new(50));
    let (endpoint, connections) = serve(Protocol::Http2, move |request| {
        let all = Arc::clone(&all);
        async move {
            all.wait().await;
            HttpResponse::new(Body::from(request.uri().to_string()))
        }
    })
    .await;
    let pool = pool();
    let answers = join_all((0..50).map(|n| {
        let (pool, endpoint) = (pool.clone(), Arc::clone(&endpoint));
        async move { text(send(pool, &endpoint, get(&format!("/{n}"))).await.unwrap()).await }
    }))
    .await;
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(*answer, format!("http://shop.example/{n}"));
    }
    assert_eq!(count(&connections), 1);
}

#[tokio::test]
async fn a_full_connection_gets_a_neighbour() {
    let all = Arc::new(Barrier::new(5));
    let (endpoint, connections) = serve(Protocol::Http2, move |_| {
        let all = Arc::clone(&all);
        async move {
            all.wait().await;
            HttpResponse::new(Body::empty())
        }
    })
    .await;
    let settings = PoolSettings { streams_per_connection: 2, ..PoolSettings::default() };
    let pool = Pool::new(TcpConnector::new(EDGE_CONNECT_TIMEOUT), settings);
    let answers = join_all((0..5).map(|_| send(pool.clone(), &endpoint, get("/")))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(count(&connections), 3);
}

#[tokio::test]
async fn a_stream_both_ways_keeps_its_order_and_its_trailers() {
    let (endpoint, _) = serve(Protocol::Http2, |request| async move {
        assert_eq!(request.headers()["te"], "trailers");
        // Each message is answered before the next one comes.
        let echo = stream::unfold(Some(request.into_body()), |body| async move {
            let mut body = body?;
            if let Some(frame) = body.frame().await {
                return Some((frame, Some(body)));
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            Some((Ok(Frame::trailers(trailers)), None))
        });
        HttpResponse::new(Body::new(StreamBody::new(echo)))
    })
    .await;
    // gRPC goes over HTTP/2 even to an endpoint that is said to speak HTTP/1.1.
    let endpoint = Arc::new(Endpoint::plaintext(endpoint.address));
    let (sender, receiver) = mpsc::unbounded_channel::<Result<Frame<Bytes>, std::io::Error>>();
    let frames =
        stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    let mut request = post("/shop.Cart/Watch", Body::new(StreamBody::new(frames)));
    request.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    let response = send(pool(), &endpoint, request).await.unwrap();
    let mut body = response.into_body();
    for message in ["one", "two", "three"] {
        sender.send(Ok(Frame::data(Bytes::from_static(message.as_bytes())))).unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), message);
    }
    drop(sender);
    let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert!(body.frame().await.is_none());
}

/// One request to a server that resets its stream.
async fn reset_with(reason: h2::Reason) -> Fault {
    let (endpoint, _) = raw(move |stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_reset(reason);
        }
    })
    .await;
    let endpoint = Arc::new(Endpoint::plaintext(endpoint.address).with_protocol(Protocol::Http2));
    send(pool(), &endpoint, post("/", "order")).await.unwrap_err()
}

#[tokio::test]
async fn only_a_refused_stream_is_known_to_be_unprocessed() {
    let table = [
        (h2::Reason::REFUSED_STREAM, Replay::Always),
        (h2::Reason::CANCEL, Replay::IfIdempotent),
        (h2::Reason::INTERNAL_ERROR, Replay::IfIdempotent),
    ];
    for (reason, replay) in table {
        let fault = reset_with(reason).await;
        assert_eq!((fault.reason(), fault.replay()), (Reason::UpstreamReset, replay), "{reason:?}");
    }
}

/// One request to a server that says `GOAWAY` with this last stream once it has the request, and closes.
async fn go_away(last: u8) -> Fault {
    let (endpoint, _) = raw(move |mut stream| async move {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        stream.write_all(&settings).await.unwrap();
        // Preface, then frames up to the first HEADERS.
        stream.read_exact(&mut [0; 24]).await.unwrap();
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
            if head[3] == 1 {
                break;
            }
        }
        let frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, 0];
        stream.write_all(&frame).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let endpoint = Arc::new(Endpoint::plaintext(endpoint.address).with_protocol(Protocol::Http2));
    send(pool(), &endpoint, post("/", "order")).await.unwrap_err()
}

#[tokio::test]
async fn going_away_spares_the_streams_above_the_last() {
    assert_eq!(go_away(0).await.replay(), Replay::Always);
    // Stream 1 was taken: whether it was processed is unknown.
    assert_eq!(go_away(1).await.replay(), Replay::IfIdempotent);
}

#[tokio::test]
async fn after_an_end_the_next_request_opens_anew() {
    let (endpoint, connections) = raw(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        if let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_response(HttpResponse::new(()), true).unwrap();
        }
        connection.graceful_shutdown();
        while connection.accept().await.is_some() {}
    })
    .await;
    let endpoint = Arc::new(Endpoint::plaintext(endpoint.address).with_protocol(Protocol::Http2));
    let pool = pool();
    let mut tries = 0;
    for _ in 0..10 {
        // A request that meets the shutdown may be refused, but then it is known to be unprocessed.
        match send(pool.clone(), &endpoint, post("/", "order")).await {
            Ok(_) => tries += 1,
            Err(fault) => assert_eq!(fault.replay(), Replay::Always, "{fault}"),
        }
    }
    assert!(tries > 0 && count(&connections) > 1);
}

#[tokio::test]
async fn requests_that_wait_for_one_connection_fail_together() {
    let address = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endpoint = Arc::new(Endpoint::plaintext(address).with_protocol(Protocol::Http2));
    let pool = pool();
    let answers = join_all((0..20).map(|_| send(pool.clone(), &endpoint, get("/")))).await;
    for answer in answers {
        assert_eq!(answer.unwrap_err().reason(), Reason::ConnectFailed);
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_never_a_clean_end() {
    let (endpoint, _) = raw(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut body = respond.send_response(HttpResponse::new(()), false).unwrap();
        body.send_data(Bytes::from("half"), false).unwrap();
        body.send_reset(h2::Reason::INTERNAL_ERROR);
        while connection.accept().await.is_some() {}
    })
    .await;
    let endpoint = Arc::new(Endpoint::plaintext(endpoint.address).with_protocol(Protocol::Http2));
    let ended = match send(pool(), &endpoint, get("/")).await {
        Ok(response) => response.into_body().collect().await.is_ok(),
        Err(_) => false,
    };
    assert!(!ended);
}
