//! The replica's half against a server that says what no server here can be made to say.

use tidekeeper::clock::SystemClock;
use tidekeeper::error::{Kind, Result};
use tidekeeper::source::redis::address::Address;
use tidekeeper::source::redis::config::Access;
use tidekeeper::source::redis::connection::Connection;
use tidekeeper::source::redis::rdb::Summary;
use tidekeeper::source::redis::replica::Transfer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::stage::rdb;

const REPLID: &str = "0123456789abcdef0123456789abcdef01234567";
const MARK: &str = "abcdefghijklmnopqrstuvwxyzabcdefghijklmn";

/// Answers PING, REPLCONF capa, REPLCONF rdb-only and PSYNC with these, the last one in pieces of `piece` bytes.
async fn told(answers: [&[u8]; 4], piece: usize) -> Result<(Summary, bool)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
    let port = listener.local_addr().expect("it is bound").port();
    let answers = answers.map(<[u8]>::to_vec);
    let server = tokio::spawn(async move {
        let (mut link, _) = listener.accept().await.expect("it dials");
        link.set_nodelay(true).expect("it is a socket");
        let mut heard = vec![0; 1024];
        for answer in answers {
            // One command, one answer: nothing may be pending when PSYNC comes.
            if !matches!(link.read(&mut heard).await, Ok(1..)) {
                return;
            }
            for bytes in answer.chunks(piece) {
                if link.write_all(bytes).await.is_err() {
                    return;
                }
            }
        }
    });
    let address = Address::new("127.0.0.1", port);
    let connection = Connection::open(&address, &Access::default(), &SystemClock::shared()).await?;
    let result = taken(connection).await;
    server.abort();
    result
}

async fn taken(connection: Connection) -> Result<(Summary, bool)> {
    let mut transfer = Transfer::begin(connection).await?;
    assert_eq!((transfer.position.replid.as_str(), transfer.position.offset), (REPLID, 77));
    let rdb_only = transfer.rdb_only;
    while transfer.next().await?.is_some() {}
    Ok((transfer.finish().await?, rdb_only))
}

const OK: &[u8] = b"+OK\r\n";

fn dump() -> Vec<u8> {
    // The data holds the mark, which must deceive nobody.
    rdb("REDIS0010", &[&[0, 1, b'k', 40][..], MARK.as_bytes()].concat())
}

fn diskless(rdb: &[u8], mark: &str) -> Vec<u8> {
    let head = format!("\n\n+FULLRESYNC {REPLID} 77\r\n\n\n$EOF:{MARK}\r\n");
    [head.as_bytes(), rdb, mark.as_bytes()].concat()
}

fn sized(rdb: &[u8], length: usize) -> Vec<u8> {
    let head = format!("+FULLRESYNC {REPLID} 77\r\n\n\n\n${length}\r\n");
    [head.as_bytes(), rdb].concat()
}

#[tokio::test]
async fn both_forms_are_taken_whatever_the_pieces() {
    let dump = dump();
    for psync in
        [diskless(&dump, MARK), sized(&dump, dump.len()), [diskless(&dump, MARK), b"\n".to_vec()].concat()]
    {
        for piece in [1, 7, 39, 40, 41, 10_000] {
            let (summary, rdb_only) = told([b"+PONG\r\n", OK, OK, &psync], piece).await.expect("it is whole");
            assert_eq!((summary.keys(), rdb_only), (1, true));
        }
    }
}

#[tokio::test]
async fn an_old_server_that_knows_no_rdb_only_is_taken_with_a_note() {
    let psync = diskless(&dump(), MARK);
    let refusal = b"-ERR Unrecognized REPLCONF option: rdb-only\r\n";
    let (_, rdb_only) = told([b"+PONG\r\n", OK, refusal, &psync], 10_000).await.expect("it is whole");
    assert!(!rdb_only);
}

#[tokio::test]
async fn an_end_at_any_byte_is_a_cut() {
    let dump = dump();
    for psync in [diskless(&dump, MARK), sized(&dump, dump.len())] {
        for end in 0..psync.len() {
            let error = told([b"+PONG\r\n", OK, OK, &psync[..end]], 10_000).await.expect_err("it is cut");
            assert!(
                matches!(error.kind(), Kind::Unreachable | Kind::Unready),
                "after {end} bytes: {error:?}"
            );
            assert!(error.is_retryable());
        }
    }
}

#[tokio::test]
async fn what_a_server_may_answer_has_a_name() {
    let dump = dump();
    let mut damaged = dump.clone();
    let middle = damaged.len() - 12;
    damaged[middle] ^= 1;
    let resync = format!("+FULLRESYNC {REPLID} 77\r\n").into_bytes();
    let cases: Vec<(Vec<u8>, Kind, &str)> = vec![
        (
            b"-NOMASTERLINK Can't SYNC while not connected with my master\r\n".to_vec(),
            Kind::Unready,
            "NOMASTERLINK",
        ),
        (b"-LOADING Redis is loading the dataset in memory\r\n".to_vec(), Kind::Unready, "LOADING"),
        (b"-ERR BGSAVE failed, replication can't continue\r\n".to_vec(), Kind::Unready, "BGSAVE failed"),
        (b"-ERR unknown command 'PSYNC'\r\n".to_vec(), Kind::Unsupported, "unknown command"),
        (
            b"-NOPERM this user has no permissions to run the 'psync' command\r\n".to_vec(),
            Kind::Denied,
            "'psync'",
        ),
        (b"-NOAUTH Authentication required.\r\n".to_vec(), Kind::Denied, "NOAUTH"),
        (b"+CONTINUE\r\n".to_vec(), Kind::Protocol, "\"CONTINUE\" instead of FULLRESYNC"),
        (b"+FULLRESYNC abc 77\r\n".to_vec(), Kind::Protocol, "instead of FULLRESYNC"),
        (b"$5\r\nhello\r\n".to_vec(), Kind::Protocol, "instead of FULLRESYNC"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), Kind::Protocol, "does not begin a reply"),
        ([&resync[..], b"-ERR BGSAVE failed\r\n"].concat(), Kind::Unready, "BGSAVE failed"),
        ([&resync[..], b"$EOF:short\r\n"].concat(), Kind::Protocol, "instead of the RDB's length or mark"),
        ([&resync[..], b"$-1\r\n"].concat(), Kind::Protocol, "instead of the RDB's length or mark"),
        ([&resync[..], &[b'x'; 600]].concat(), Kind::Protocol, "instead of the RDB's length or mark"),
        (diskless(&dump, &MARK.to_uppercase()), Kind::Damaged, "the mark after the RDB"),
        (diskless(&damaged, MARK), Kind::Damaged, "its CRC64 says"),
        (sized(&dump, dump.len() + 1), Kind::Damaged, "bytes were announced"),
        (sized(&dump, dump.len() - 1), Kind::Damaged, "bytes were announced"),
        (sized(b"GARBAGE!!", 9), Kind::Damaged, "it begins with"),
    ];
    for (psync, kind, why) in cases {
        let error = told([b"+PONG\r\n", OK, OK, &psync], 10_000).await.expect_err(why);
        assert_eq!(error.kind(), kind, "{why}: {error:?}");
        assert!(error.to_string().contains(why), "{error:?} does not say {why:?}");
    }
}
