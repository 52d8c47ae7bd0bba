//! The client against small servers of its own.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::bodies::{self, Wire};
use super::record::Report;
use super::{Bench, Protocol, load};

fn file_of(requests: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = Vec::new();
    for (head, body) in requests {
        for part in [head.as_bytes(), body] {
            file.extend(u32::try_from(part.len()).unwrap().to_le_bytes());
            file.extend(part);
        }
    }
    file
}

const HEAD: &str = r#"{"path": "/infer", "headers": {"x-a": "b"}, "pairs": 3}"#;

fn address() -> SocketAddr {
    "127.0.0.1:1".parse().unwrap()
}

#[test]
fn bodies_become_whole_requests() {
    let file = file_of(&[(HEAD, b"abc"), (HEAD, b"")]);
    let prepared = bodies::parse(&file, address(), Protocol::Http).unwrap();
    assert_eq!(prepared.iter().map(|p| p.pairs).collect::<Vec<_>>(), [3, 3]);
    let Wire::Http(whole) = &prepared[0].wire else {
        panic!("prepared for another protocol")
    };
    let expected = "POST /infer HTTP/1.1\r\nhost: 127.0.0.1:1\r\nx-a: b\r\ncontent-length: 3\r\n\r\nabc";
    assert_eq!(std::str::from_utf8(whole).unwrap(), expected);
    let prepared = bodies::parse(&file, address(), Protocol::Grpc).unwrap();
    let Wire::Grpc { message, .. } = &prepared[0].wire else {
        panic!("prepared for another protocol")
    };
    assert_eq!(message.as_ref(), b"\0\0\0\0\x03abc");
}

#[test]
fn what_is_wrong_with_bodies_is_said() {
    let whole = file_of(&[(HEAD, b"abc")]);
    let cases: [(Vec<u8>, &str); 6] = [
        (vec![], "no request in it"),
        (
            whole[..whole.len() - 1].to_vec(),
            "request 0: the file ends inside",
        ),
        (
            [whole.clone(), vec![1]].concat(),
            "request 1: the file ends inside",
        ),
        (file_of(&[("{}", b"")]), "missing field `path`"),
        (
            file_of(&[(r#"{"path": "x", "pairs": 1}"#, b"")]),
            "does not start with /",
        ),
        (
            file_of(&[(r#"{"path": "/", "pairs": 1, "headers": {"a": "b\r\nc: d"}}"#, b"")]),
            "header \"a\"",
        ),
    ];
    for (file, expected) in cases {
        let error = bodies::parse(&file, address(), Protocol::Http).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

/// Answers each request with the next status; 0 means never.
async fn server(statuses: &'static [u16]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                for status in statuses.iter().cycle() {
                    // Requests of these tests come in one piece.
                    if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
                        return;
                    }
                    if *status == 0 {
                        std::future::pending::<()>().await;
                    }
                    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    address
}

fn measure(statuses: &'static [u16], rate: Option<f64>) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let measured = async {
        let args = Bench {
            address: server(statuses).await,
            protocol: Protocol::Http,
            bodies: "unused".into(),
            rate,
            connections: 2,
            duration: Duration::from_millis(300),
            warm_up: Duration::from_millis(50),
            patience: Duration::from_millis(400),
            seed: 1,
        };
        let file = file_of(&[(HEAD, b"abc")]);
        load::run(&args, bodies::parse(&file, args.address, args.protocol).unwrap())
            .await
            .unwrap()
    };
    tokio::task::LocalSet::new().block_on(&runtime, measured)
}

#[test]
fn a_closed_loop_counts_by_status() {
    let report = measure(&[200, 429, 500], None);
    let total = report.total;
    assert!(total.answered > 0 && total.refused > 0 && total.failed > 0);
    assert_eq!(total.sent, total.answered + total.refused + total.failed);
    assert_eq!(total.pairs, 3 * total.answered);
    assert_eq!(report.first_failure.as_deref(), Some("HTTP 500: ok"));
    assert!(report.client_cpu_seconds > 0.0);
}

#[test]
fn an_open_loop_sends_what_is_due_and_no_more() {
    let (once, again) = (measure(&[200], Some(1000.0)), measure(&[200], Some(1000.0)));
    // 300 are expected, give or take four standard deviations; the same seed has the same arrivals.
    assert!((230..=370).contains(&once.total.sent), "{}", once.total.sent);
    assert!(once.total.sent.abs_diff(again.total.sent) <= 5);
    assert_eq!(once.total.answered, once.total.sent);
}

#[test]
fn a_server_that_never_answers_is_not_left_out() {
    let report = measure(&[0], Some(200.0));
    assert_eq!(report.total.sent, 2, "one a connection");
    assert!(
        report.total.unanswered > report.total.sent,
        "those that waited are counted too"
    );
    assert!(
        report.latency.unwrap().p50_ms >= 400.0,
        "with the time they waited"
    );
}
