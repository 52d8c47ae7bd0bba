//! One connection that carries one request at a time, whatever the protocol.

use std::net::SocketAddr;

use super::bodies::Prepared;
use super::{Protocol, grpc, http};

/// How a request ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// HTTP status, or gRPC status code; `None` without an answer.
    pub status: Option<u16>,
    pub kind: Kind,
    /// For people, when it failed.
    pub failure: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 200 or OK.
    Answered,
    /// 429 or RESOURCE_EXHAUSTED.
    Refused,
    Failed,
}

impl Outcome {
    pub fn broken(reason: impl std::fmt::Display) -> Self {
        Self {
            status: None,
            kind: Kind::Failed,
            failure: Some(reason.to_string()),
        }
    }
}

pub enum Connection {
    Http(http::Connection),
    Grpc(grpc::Connection),
}

impl Connection {
    pub async fn open(address: SocketAddr, protocol: Protocol) -> Result<Self, String> {
        Ok(match protocol {
            Protocol::Http => Self::Http(http::Connection::open(address).await?),
            Protocol::Grpc => Self::Grpc(grpc::Connection::open(address).await?),
        })
    }

    /// Sends one request and takes its whole answer. A connection that broke is opened anew by the next request.
    pub async fn ask(&mut self, request: &Prepared) -> Outcome {
        match self {
            Self::Http(connection) => connection.ask(&request.wire).await,
            Self::Grpc(connection) => connection.ask(&request.wire).await,
        }
    }
}
