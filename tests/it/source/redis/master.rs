//! The master's half against callers of every kind; what a real server makes of it is in `restore`.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tidekeeper::clock::SystemClock;
use tidekeeper::config::secret::Secret;
use tidekeeper::error::{Error, Kind, Result};
use tidekeeper::source::redis::feed::Feed;
use tidekeeper::source::redis::master::command::{Heard, take};
use tidekeeper::source::redis::master::{Answer, Guest, Listener, Login, Master, Offer, Patience, answer};
use tidekeeper::task::Progress;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const REPLID: &str = "0123456789012345678901234567890123456789";
const OWN: &str = "abcdefabcdefabcdefabcdefabcdefabcdefabcd";

fn guest(login: Option<Login>) -> Guest {
    let addresses = vec![IpAddr::from([127, 0, 0, 1])];
    Guest { label: "redis-scratch".to_owned(), addresses, replid: REPLID.to_owned(), login }
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

#[test]
fn only_the_target_is_let_in() {
    let open = guest(None);
    let login = |user: Option<&str>| Login { user: user.map(str::to_owned), password: Secret::new("pw") };
    let (closed, named) = (guest(Some(login(None))), guest(Some(login(Some("anna")))));
    let right = format!("PSYNC {REPLID} 42");
    let lets_in = |guest: &Guest, lines: &[&str]| {
        let mut logged_in = false;
        let answers = lines.iter().map(|line| answer(&words(line), guest, &mut logged_in));
        answers.last() == Some(Answer::Admit)
    };
    assert!(lets_in(
        &open,
        &["PING", "REPLCONF listening-port 6379", "REPLCONF capa eof capa psync2", &right]
    ));
    assert!(lets_in(&closed, &["AUTH pw", &right]));
    assert!(lets_in(&closed, &["AUTH default pw", &right]));
    assert!(lets_in(&named, &["AUTH anna pw", &right]));
    for (guest, lines) in [
        (&open, &["PSYNC ? -1"][..]),
        (&open, &["SYNC"]),
        (&open, &["PSYNC 1123456789012345678901234567890123456789 42"]),
        (&closed, &[right.as_str()]),
        (&closed, &["AUTH wrong", &right]),
        (&closed, &["AUTH anna pw", &right]),
        (&named, &["AUTH pw", &right]),
        (&named, &["AUTH anna pw more", &right]),
    ] {
        assert!(!lets_in(guest, lines), "{lines:?}");
    }
    assert!(matches!(answer(&words("GET secret"), &open, &mut false), Answer::Refuse(..)));
}

#[test]
fn commands_are_understood_however_they_are_cut() {
    let wire =
        b"\n\n*1\r\n$4\r\nPING\r\n\nPSYNC id -1\r\n*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n$2\r\n42\r\n\n";
    let heard = |pieces: &[&[u8]]| {
        let (mut buffer, mut commands) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(heard) = take(&mut buffer).expect("it is a replica") {
                if let Heard::Command(words) = heard {
                    commands.push(words);
                }
            }
        }
        assert!(buffer.is_empty());
        commands
    };
    let expected = [words("PING"), words("PSYNC id -1"), words("REPLCONF ACK 42")];
    for cut in 0..=wire.len() {
        let (before, after) = wire.split_at(cut);
        assert_eq!(heard(&[before, after]), expected, "cut at {cut}");
    }
    assert_eq!(heard(&wire.chunks(1).collect::<Vec<_>>()), expected);
}

#[test]
fn what_is_no_replica_is_told_so() {
    for wire in [&b"*x\r\n"[..], b"*1\r\n:1\r\n", b"*99999999\r\n", b"*1\r\n$999999999\r\n"] {
        let error = take(&mut BytesMut::from(wire)).expect_err("it makes no sense");
        assert_eq!(error.kind(), Kind::Protocol);
    }
    let endless = vec![b'x'; 100 << 10];
    assert!(take(&mut BytesMut::from(&endless[..])).is_err());
}

fn feed(chunks: Vec<Result<Bytes>>) -> Feed {
    let (to, feed) = mpsc::channel(64);
    for chunk in chunks {
        to.try_send(chunk).expect("there is room");
    }
    feed
}

struct Scene {
    master: Master,
    listener: Listener,
    port: u16,
}

async fn scene(guest: Guest) -> Scene {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), None).await.expect("loopback has ports");
    let port = listener.address().expect("it listens").port();
    let half = Duration::from_millis(500);
    let patience = Patience { dial: half, handshake: half, silence: 4 * half };
    let master = Master { guest, clock: SystemClock::shared(), progress: Progress::default(), patience };
    Scene { master, listener, port }
}

fn offer(bytes: u64, feed: Feed) -> Offer {
    Offer { replid: OWN.to_owned(), offset: 42, bytes, feed }
}

/// Dials, shakes hands, and reads until `+FULLRESYNC` has come.
async fn call(port: u16) -> TcpStream {
    let mut link = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    link.write_all(b"*1\r\n$4\r\nPING\r\n").await.expect("it listens");
    assert_eq!(line(&mut link).await, "+PONG");
    link.write_all(format!("PSYNC {REPLID} 43\r\n").as_bytes()).await.expect("it listens");
    assert_eq!(line(&mut link).await, format!("+FULLRESYNC {OWN} 42"));
    link
}

async fn line(link: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(link.read_u8().await.expect("a line"));
    }
    String::from_utf8(line).expect("text").trim().to_owned()
}

/// `\n`s, then `$EOF:<mark>`.
async fn mark(link: &mut TcpStream) -> (usize, Vec<u8>) {
    let mut newlines = 0;
    while link.read_u8().await.expect("a line") == b'\n' {
        newlines += 1;
    }
    let head = line(link).await;
    let mark = head.strip_prefix("EOF:").expect("the form with a mark");
    assert_eq!(mark.len(), 40);
    (newlines, mark.as_bytes().to_vec())
}

#[tokio::test]
async fn the_payload_stands_before_its_mark_and_nothing_after_it() {
    let Scene { master, listener, port } = scene(guest(None)).await;
    let served = master.serve(listener, offer(6, feed(vec![Ok("RDB".into()), Ok("RDB".into())])));
    let replica = async {
        let mut link = call(port).await;
        let (_, mark) = mark(&mut link).await;
        let mut payload = vec![0; 46];
        link.read_exact(&mut payload).await.expect("all of it");
        assert_eq!(payload, [b"RDBRDB", &mark[..]].concat());
        link.write_all(b"\n\n*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n$2\r\n42\r\n").await.expect("it listens");
        let mut rest = Vec::new();
        link.read_to_end(&mut rest).await.expect("it ends");
        assert!(rest.is_empty());
    };
    let (served, ()) = tokio::join!(served, replica);
    served.expect("it was loaded");
    assert_eq!(master.progress.snapshot().bytes, 6);
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err(), "nobody else is let in");
}

#[tokio::test]
async fn a_slow_vault_keeps_the_target_waiting() {
    let Scene { master, listener, port } = scene(guest(None)).await;
    let (to, feed) = mpsc::channel(1);
    let served = master.serve(listener, offer(3, feed));
    let replica = async {
        let mut link = call(port).await;
        assert_eq!(link.read_u8().await.expect("a newline"), b'\n');
        to.send(Ok("RDB".into())).await.expect("it is wanted");
        drop(to);
        mark(&mut link).await;
        link.write_all(b"*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n$2\r\n42\r\n").await.expect("it listens");
    };
    tokio::join!(served, replica).0.expect("it was loaded");
}

/// Serves a feed to a caller who reads to the end; gives the error and what came after the head.
async fn cut(bytes: u64, chunks: Vec<Result<Bytes>>) -> (Error, Vec<u8>) {
    let Scene { master, listener, port } = scene(guest(None)).await;
    let served = async { master.serve(listener, offer(bytes, feed(chunks))).await };
    let replica = async {
        let mut link = call(port).await;
        let mut all = Vec::new();
        let _ = link.read_to_end(&mut all).await;
        all
    };
    let (served, all) = tokio::join!(served, replica);
    (served.expect_err("it was cut"), all)
}

#[tokio::test]
async fn without_all_bytes_there_is_no_mark() {
    let damaged = Error::new(Kind::Damaged, "reading dump.rdb", "its hash is wrong");
    for (bytes, chunks, kind) in [
        (9, vec![Ok("RDB".into())], Kind::Damaged),
        (6, vec![Ok("RDB".into()), Err(damaged)], Kind::Damaged),
        (6, vec![Err(Error::new(Kind::NotFound, "reading dump.rdb", "it is gone"))], Kind::NotFound),
    ] {
        let (error, all) = cut(bytes, chunks).await;
        assert_eq!(error.kind(), kind);
        let text = String::from_utf8(all).expect("text");
        let rest = text.split_once("RDB").map(|(_, rest)| rest).unwrap_or_default();
        assert!(rest.is_empty(), "{rest:?}");
    }
}

#[tokio::test]
async fn strangers_are_turned_away_and_the_target_is_let_in() {
    let Scene { master, listener, port } = scene(guest(None)).await;
    let served = master.serve(listener, offer(3, feed(vec![Ok("RDB".into())])));
    let strangers = async {
        let mut link = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
        link.write_all(b"PSYNC ? -1\r\n").await.expect("it listens");
        assert!(line(&mut link).await.starts_with("-ERR"));
        assert_eq!(link.read(&mut [0; 9]).await.expect("it hangs up"), 0);
        call(port).await
    };
    let (served, link) = tokio::join!(served, async {
        let mut link = strangers.await;
        mark(&mut link).await;
        link.write_all(b"*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n$2\r\n42\r\n").await.expect("it listens");
        link
    });
    drop(link);
    served.expect("the target came after the stranger");
}

#[tokio::test]
async fn who_only_talks_is_hung_up_on() {
    let Scene { master, listener, port } = scene(guest(None)).await;
    let served = master.serve(listener, offer(3, feed(vec![Ok("RDB".into())])));
    let caller = async {
        let mut link = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
        while link.write_all(b"PING\r\n").await.is_ok() && link.read_u8().await.is_ok() {}
    };
    let (served, ()) = tokio::join!(served, caller);
    let error = served.expect_err("nobody else came");
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(error.why().contains("its handshake took too long"), "{error}");
}

#[tokio::test]
async fn a_caller_from_elsewhere_gets_nothing() {
    let elsewhere = Guest { addresses: vec![IpAddr::from([10, 0, 0, 9])], ..guest(None) };
    let Scene { master, listener, port } = scene(elsewhere).await;
    let served = master.serve(listener, offer(3, feed(vec![Ok("RDB".into())])));
    let caller = async {
        let mut link = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
        let _ = link.write_all(b"PING\r\n").await;
        assert!(!matches!(link.read(&mut [0; 9]).await, Ok(1..)));
    };
    let (served, ()) = tokio::join!(served, caller);
    let error = served.expect_err("nobody else came");
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(error.why().contains("127.0.0.1: it is not an address of the target"), "{error}");
}

#[tokio::test]
async fn an_offset_that_is_not_ours_is_no_success() {
    let Scene { master, listener, port } = scene(guest(None)).await;
    let served = master.serve(listener, offer(3, feed(vec![Ok("RDB".into())])));
    let replica = async {
        let mut link = call(port).await;
        mark(&mut link).await;
        link.write_all(b"*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n$1\r\n7\r\n").await.expect("it listens");
        let _ = link.read_to_end(&mut Vec::new()).await;
    };
    let error = tokio::join!(served, replica).0.expect_err("it loaded something else");
    assert_eq!(error.kind(), Kind::Protocol);
}

#[tokio::test]
async fn a_target_that_says_nothing_more_is_given_up() {
    let Scene { master, listener, port } = scene(guest(None)).await;
    let served = master.serve(listener, offer(3, feed(vec![Ok("RDB".into())])));
    let replica = async {
        let mut link = call(port).await;
        let _ = link.read_to_end(&mut Vec::new()).await;
    };
    let error = tokio::join!(served, replica).0.expect_err("it is silent");
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(error.why().contains("has all of the data"), "{error}");
}
