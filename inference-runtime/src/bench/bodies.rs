//! The file of prepared requests: everything that can be made before the clock starts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::Deserialize;

use super::{BenchError, Protocol};

/// A request that only has to be written.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub pairs: u64,
    pub wire: Wire,
}

#[derive(Clone, Debug)]
pub enum Wire {
    /// Head and body of HTTP/1.1.
    Http(Bytes),
    /// What HTTP/2 sends as a stream; the message has its five bytes of gRPC framing.
    Grpc {
        uri: Uri,
        headers: HeaderMap,
        message: Bytes,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    pairs: u64,
}

pub fn read(path: &Path, address: SocketAddr, protocol: Protocol) -> Result<Vec<Prepared>, BenchError> {
    let wrong = |reason: String| BenchError::Bodies {
        path: path.to_owned(),
        reason,
    };
    let content = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    parse(&content, address, protocol).map_err(wrong)
}

pub fn parse(content: &[u8], address: SocketAddr, protocol: Protocol) -> Result<Vec<Prepared>, String> {
    let mut rest = content;
    let mut prepared = Vec::new();
    while !rest.is_empty() {
        let wrong = |reason: String| format!("request {}: {reason}", prepared.len());
        let head = part(&mut rest).map_err(&wrong)?;
        let head: Head = serde_json::from_slice(head).map_err(|error| wrong(format!("the head: {error}")))?;
        let body = part(&mut rest).map_err(&wrong)?;
        let wire = match protocol {
            Protocol::Http => http_request(&head, body, address),
            Protocol::Grpc => grpc_request(&head, body, address),
        };
        let wire = wire.map_err(wrong)?;
        prepared.push(Prepared {
            pairs: head.pairs,
            wire,
        });
    }
    if prepared.is_empty() {
        return Err("no request in it".to_owned());
    }
    Ok(prepared)
}

/// A length and that many bytes.
fn part<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let cut = || "the file ends inside a request".to_owned();
    let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (part, after) = after.split_at_checked(length).ok_or_else(cut)?;
    *rest = after;
    Ok(part)
}

fn http_request(head: &Head, body: &[u8], address: SocketAddr) -> Result<Wire, String> {
    // Checked as the other protocol does it, so that no head can be told apart from the body wrongly.
    uri(&head.path, address)?;
    headers(&head.headers)?;
    let mut text = format!("POST {} HTTP/1.1\r\nhost: {address}\r\n", head.path);
    for (name, value) in &head.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let mut whole = BytesMut::with_capacity(text.len() + body.len());
    whole.put_slice(text.as_bytes());
    whole.put_slice(body);
    Ok(Wire::Http(whole.freeze()))
}

fn grpc_request(head: &Head, body: &[u8], address: SocketAddr) -> Result<Wire, String> {
    let mut headers = headers(&head.headers)?;
    headers.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    let length = u32::try_from(body.len()).map_err(|_| "the message is over 4 GiB".to_owned())?;
    let mut message = BytesMut::with_capacity(5 + body.len());
    message.put_u8(0);
    message.put_u32(length);
    message.put_slice(body);
    Ok(Wire::Grpc {
        uri: uri(&head.path, address)?,
        headers,
        message: message.freeze(),
    })
}

fn uri(path: &str, address: SocketAddr) -> Result<Uri, String> {
    if !path.starts_with('/') {
        return Err(format!("path {path:?} does not start with /"));
    }
    format!("http://{address}{path}")
        .parse()
        .map_err(|error| format!("path {path:?}: {error}"))
}

fn headers(given: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let wrong = |error: &dyn std::fmt::Display| format!("header {name:?}: {error}");
        let key: HeaderName = name.parse().map_err(|error| wrong(&error))?;
        let value = HeaderValue::from_str(value).map_err(|error| wrong(&error))?;
        headers.insert(key, value);
    }
    Ok(headers)
}
