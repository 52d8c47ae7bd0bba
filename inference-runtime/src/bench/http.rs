//! HTTP/1.1 without a client library: a benchmark's client must cost less than the server.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bodies::Wire;
use super::connection::{Kind, Outcome};

const READ_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 64;
/// Of an answer that is no success, for people.
const SHOWN_BYTES: usize = 300;

pub struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

/// What the head of an answer says.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Bytes of the head.
    length: usize,
    body: BodyLength,
    close: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum BodyLength {
    Known(usize),
    Chunked,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self, String> {
        Ok(Self {
            address,
            stream: Some(connect(address).await?),
            buffer: Vec::with_capacity(READ_BYTES),
        })
    }

    pub async fn ask(&mut self, wire: &Wire) -> Outcome {
        let Wire::Http(request) = wire else {
            return Outcome::broken("prepared for gRPC");
        };
        match self.exchange(request).await {
            Ok(outcome) => outcome,
            Err(reason) => {
                self.stream = None;
                Outcome::broken(reason)
            }
        }
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Outcome, String> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(connect(self.address).await?),
        };
        stream.write_all(request).await.map_err(|e| e.to_string())?;
        self.buffer.clear();
        let head = loop {
            receive(stream, &mut self.buffer).await?;
            if let Some(head) = parse_head(&self.buffer)? {
                break head;
            }
        };
        let end = loop {
            if let Some(end) = body_end(&self.buffer, &head)? {
                break end;
            }
            receive(stream, &mut self.buffer).await?;
        };
        let outcome = judge(head.status, &self.buffer[head.length..end]);
        if head.close {
            self.stream = None;
        }
        Ok(outcome)
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    Ok(stream)
}

async fn receive(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<(), String> {
    buffer.reserve(READ_BYTES);
    match stream.read_buf(buffer).await {
        Ok(0) => Err("closed without a whole answer".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// `None` until the head is complete.
fn parse_head(buffer: &[u8]) -> Result<Option<Head>, String> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(buffer).map_err(|e| e.to_string())?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(None);
    };
    let mut head = Head {
        status: response.code.unwrap_or(0),
        length,
        body: BodyLength::Known(0),
        close: response.version == Some(0),
    };
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).unwrap_or("");
            let length = text
                .trim()
                .parse()
                .map_err(|_| "a bad Content-Length".to_owned())?;
            head.body = BodyLength::Known(length);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            head.body = BodyLength::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            head.close = header.value.eq_ignore_ascii_case(b"close");
        }
    }
    Ok(Some(head))
}

/// Where the answer ends in the buffer; `None` until it is whole.
fn body_end(buffer: &[u8], head: &Head) -> Result<Option<usize>, String> {
    match head.body {
        BodyLength::Known(length) => {
            let end = head.length + length;
            Ok((buffer.len() >= end).then_some(end))
        }
        BodyLength::Chunked => chunks_end(buffer, head.length),
    }
}

fn chunks_end(buffer: &[u8], mut at: usize) -> Result<Option<usize>, String> {
    loop {
        let rest = buffer.get(at..).unwrap_or(&[]);
        match httparse::parse_chunk_size(rest).map_err(|_| "a bad chunk size".to_owned())? {
            httparse::Status::Partial => return Ok(None),
            httparse::Status::Complete((line, size)) => {
                let size = usize::try_from(size).map_err(|e| e.to_string())?;
                // The chunk, and the end of its line.
                at += line + size + 2;
                if buffer.len() < at {
                    return Ok(None);
                }
                if size == 0 {
                    return Ok(Some(at));
                }
            }
        }
    }
}

fn judge(status: u16, body: &[u8]) -> Outcome {
    let kind = match status {
        200 => Kind::Answered,
        429 => Kind::Refused,
        _ => Kind::Failed,
    };
    let shown = &body[..body.len().min(SHOWN_BYTES)];
    Outcome {
        status: Some(status),
        kind,
        failure: (kind == Kind::Failed).then(|| format!("HTTP {status}: {}", String::from_utf8_lossy(shown))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_of(answer: &[u8]) -> Option<usize> {
        let head = parse_head(answer).unwrap()?;
        body_end(answer, &head).unwrap()
    }

    #[test]
    fn the_end_of_an_answer_is_found_wherever_it_is_cut() {
        let known = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc".as_slice();
        let chunked =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
                .as_slice();
        for answer in [known, chunked] {
            for cut in 0..answer.len() {
                assert_eq!(end_of(&answer[..cut]), None, "{cut}");
            }
            assert_eq!(end_of(answer), Some(answer.len()));
        }
    }

    #[test]
    fn closing_is_noticed() {
        let close = |text: &[u8]| parse_head(text).unwrap().unwrap().close;
        assert!(close(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"));
        assert!(close(b"HTTP/1.0 200 OK\r\n\r\n"));
        assert!(!close(b"HTTP/1.1 200 OK\r\n\r\n"));
    }

    #[test]
    fn answers_are_judged_by_their_status() {
        assert_eq!(judge(200, b"x").kind, Kind::Answered);
        assert_eq!(judge(429, b"x").kind, Kind::Refused);
        let failed = judge(500, b"why");
        assert_eq!(failed.failure.as_deref(), Some("HTTP 500: why"));
    }
}
