//! Servers that cannot be used: each says in one line what is wrong with it, and what to do.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use mongodb::bson::{Document, doc};
use tidekeeper::clock::SystemClock;
use tidekeeper::config::secret::{Password, Secret};
use tidekeeper::error::{Error, Kind};
use tidekeeper::source::mongodb::client::Link;
use tidekeeper::source::mongodb::config::Settings;
use tidekeeper::source::mongodb::hosts::{Heard, Sought, absence};

use crate::harness::free_port;
use crate::harness::mongodb::{MongoServer, settings_at};
use crate::harness::tls::certificates;

/// Long enough for an answer that comes at once.
const OPTIONS: &str = "serverSelectionTimeoutMS=1500";

async fn ask(settings: &Settings) -> Result<Document, Error> {
    let link = Link::open(settings, &SystemClock::shared()).await?;
    link.command("admin", doc! { "listDatabases": 1 }).await
}

/// What is said of the servers at this place, which cannot be used.
async fn refusal(place: &str, options: &str) -> Error {
    let uri = format!("mongodb://{place}/?{OPTIONS}{options}");
    let error = ask(&settings_at(&uri)).await.expect_err("it cannot be used");
    let text = format!("{error} {}", error.hint_text().unwrap_or_default());
    for noise in ["Topology", "Server selection", "labels", "Kind:", "os error 111"] {
        assert!(!text.contains(noise), "{text}");
    }
    error
}

fn assert_says(error: &Error, kind: Kind, why: &str, hint: &str) {
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.why().contains(why), "{:?} has no {why:?}", error.why());
    assert!(error.hint_text().is_some_and(|text| text.contains(hint)), "{error:?}");
}

/// A port on which something else is done with whoever calls.
fn listen(answer: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let address = listener.local_addr().expect("it is bound").to_string();
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
    address
}

#[tokio::test]
async fn what_is_no_server_is_told_apart() {
    let closed = format!("127.0.0.1:{}", free_port());
    let error = refusal(&closed, "").await;
    assert_says(&error, Kind::Unreachable, &format!("{closed} refuses the connection"), "whether it is up");
    assert!(error.why().starts_with("no server within 1.5s: "), "{error:?}");

    let silent = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let address = silent.local_addr().expect("it is bound").to_string();
    for given_up_after in ["&connectTimeoutMS=500", "&connectTimeoutMS=60000"] {
        let error = refusal(&address, given_up_after).await;
        assert_says(&error, Kind::Unreachable, &format!("{address} does not answer"), "whether it is up");
    }

    let other = listen(|mut client| {
        let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        std::mem::forget(client);
    });
    let error = refusal(&other, "").await;
    assert_says(&error, Kind::Unreachable, "does not speak MongoDB's protocol", "something else listens");

    let mute = listen(drop);
    let error = refusal(&mute, "").await;
    assert_says(&error, Kind::Unreachable, "hangs up without an answer", "add `tls=true`");
    let error = refusal(&mute, "&tls=true").await;
    assert_says(&error, Kind::Unreachable, "hangs up without an answer", "take `tls=true` out");

    let error = refusal(&format!("nowhere.invalid,{closed}"), "").await;
    assert_says(&error, Kind::Unreachable, "nowhere.invalid:27017 has no address", "spelling");
    assert!(error.why().contains("refuses the connection"), "{error:?}");
}

#[tokio::test]
async fn a_server_that_speaks_tls_is_told_from_one_that_does_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tls = certificates(folder.path());
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().expect("a path").display().to_string();
    let (cert, key, ca) = (path(&tls.cert_file), path(&tls.key_file), path(&tls.ca_file));
    let server = MongoServer::start_for(
        &["--tls-cert-file", &cert, "--tls-key-file", &key],
        &format!("&tls=true&tlsCAFile={ca}"),
    )
    .await;
    let address = format!("127.0.0.1:{}", server.port);
    let error = refusal(&address, "").await;
    assert_says(&error, Kind::Unreachable, "hangs up without an answer", "add `tls=true`");
    let error = refusal(&address, "&tls=true").await;
    assert_says(&error, Kind::Unreachable, "terms on TLS (invalid peer certificate", "tlsCAFile");
}

#[tokio::test]
async fn a_server_that_lets_nobody_in_or_is_of_another_set_says_so() {
    let server = MongoServer::start(&["--auth"]).await;
    let address = format!("127.0.0.1:{}", server.port);
    let mut settings = settings_at(&format!("mongodb://{address}/?{OPTIONS}"));
    settings.username = Some("nobody".to_owned());
    settings.password = Some(Password::Given(Secret::new("wrong")));
    let error = ask(&settings).await.expect_err("it lets nobody in");
    assert_says(&error, Kind::Denied, "uthentication failed", "the password");
    for options in ["&replicaSet=rs0", "&replicaSet=rs0&directConnection=true"] {
        let error = refusal(&address, options).await;
        let why =
            format!("no member of the replica set rs0 within 1.5s: {address} is of the replica set secantus");
        assert_says(&error, Kind::Config, &why, "`replicaSet=`");
    }
}

#[test]
fn members_without_a_primary_are_named_with_what_they_are() {
    let sought = |set: Option<&str>| Sought {
        set: set.map(str::to_owned),
        tls: false,
        within: Duration::from_secs(15),
    };
    let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    let secondary = Heard::Hello(doc! { "setName": "rs0", "secondary": true });
    let heard: BTreeMap<String, Heard> = [
        ("a:1".to_owned(), Heard::Failure(refused().into())),
        ("b:1".to_owned(), secondary.clone()),
        ("c:1".to_owned(), Heard::Hello(doc! { "isreplicaset": true })),
    ]
    .into();
    let found = absence(&sought(Some("rs0")), &heard);
    assert_eq!(
        found.why,
        "no primary within 15s: a:1 refuses the connection, b:1 is a secondary, c:1 is starting or recovering"
    );
    assert_eq!(found.kind, Kind::Unready);
    assert!(found.hint.contains("rs.status()"), "{found:?}");
    // A stranger beside one that is only away: it may come back.
    let heard = [("a:1".to_owned(), Heard::Failure(refused().into())), ("b:1".to_owned(), secondary)].into();
    assert_eq!(absence(&sought(Some("rs1")), &heard).kind, Kind::Unreachable);
}
