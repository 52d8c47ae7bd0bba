//! gRPC as HTTP/2 carries it: the messages are prepared, so nothing is encoded here.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::bodies::Wire;
use super::connection::{Kind, Outcome};

/// Answers of 16 MiB must not wait for window updates.
const WINDOW_BYTES: u32 = 16 << 20;

pub struct Connection {
    address: SocketAddr,
    sender: Option<http2::SendRequest<Full<Bytes>>>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self, String> {
        Ok(Self {
            address,
            sender: Some(connect(address).await?),
        })
    }

    pub async fn ask(&mut self, wire: &Wire) -> Outcome {
        match self.exchange(wire).await {
            Ok(outcome) => outcome,
            Err(reason) => {
                self.sender = None;
                Outcome::broken(reason)
            }
        }
    }

    async fn exchange(&mut self, wire: &Wire) -> Result<Outcome, String> {
        let Wire::Grpc {
            uri,
            headers,
            message,
        } = wire
        else {
            return Err("prepared for HTTP".to_owned());
        };
        // One that got GOAWAY is no longer ready.
        let mut sender = match self.sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => connect(self.address).await?,
        };
        sender.ready().await.map_err(|e| e.to_string())?;
        let sender = self.sender.insert(sender);
        let mut request = Request::new(Full::new(message.clone()));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|e| e.to_string())?;
        // An answer without a message has its status in the head.
        let trailers = body.trailers().unwrap_or(&head.headers);
        Ok(judge(trailers))
    }
}

async fn connect(address: SocketAddr) -> Result<http2::SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    // Its error reaches the request that waits on it.
    tokio::spawn(async move { connection.await.ok() });
    Ok(sender)
}

fn judge(trailers: &HeaderMap) -> Outcome {
    let text = |name| trailers.get(name).and_then(|value| value.to_str().ok());
    let status = text("grpc-status").and_then(|status| status.parse().ok());
    let kind = match status {
        Some(0) => Kind::Answered,
        Some(8) => Kind::Refused,
        _ => Kind::Failed,
    };
    let failure = || {
        format!(
            "gRPC status {status:?}: {}",
            text("grpc-message").unwrap_or("without a message")
        )
    };
    Outcome {
        status,
        kind,
        failure: (kind == Kind::Failed).then(failure),
    }
}
