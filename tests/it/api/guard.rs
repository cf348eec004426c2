//! Who may call: this machine, and no page of another one through this machine's browser.

use reqwest::{Method, StatusCode};
use tidekeeper::api::guard::loopback_only;
use tidekeeper::error::Kind;

use super::{Daemon, problem_of};

#[test]
fn without_authentication_it_listens_on_loopback_only() {
    for good in ["127.0.0.1:8080", "[::1]:8080", "127.8.8.8:1"] {
        loopback_only(good.parse().unwrap()).unwrap();
    }
    for bad in ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:8080"] {
        let refused = loopback_only(bad.parse().unwrap()).unwrap_err();
        assert_eq!(refused.kind(), Kind::Config);
        assert!(refused.to_string().contains(bad) && refused.hint_text().is_some(), "{refused:?}");
    }
}

#[tokio::test]
async fn a_page_from_elsewhere_is_refused() {
    let daemon = Daemon::start().await;
    let port = daemon.url.rsplit_once(':').unwrap().1;
    let with = async |name: &str, value: String| {
        let call = daemon.call(Method::GET, "/v1/sources").header(name, value);
        call.send().await.expect("an answer")
    };
    for foreign in
        [format!("evil.example:{port}"), "10.0.0.1".to_owned(), "localhost.evil.example".to_owned()]
    {
        problem_of(with("host", foreign).await, StatusCode::MISDIRECTED_REQUEST, "foreign-host").await;
    }
    for foreign in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        problem_of(with("origin", foreign.to_owned()).await, StatusCode::FORBIDDEN, "foreign-origin").await;
    }
    for ours in [format!("localhost:{port}"), format!("[::1]:{port}"), "LOCALHOST".to_owned()] {
        assert_eq!(with("host", ours).await.status(), StatusCode::OK);
    }
    assert_eq!(with("origin", daemon.url.clone()).await.status(), StatusCode::OK);
}
