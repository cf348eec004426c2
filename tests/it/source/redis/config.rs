//! The part of the configuration that is Redis' own.

use std::path::{Path, PathBuf};

use tidekeeper::config::node::Problem;
use tidekeeper::config::secret::Password;
use tidekeeper::config::yaml;
use tidekeeper::source::Kind;
use tidekeeper::source::redis::Redis;
use tidekeeper::source::redis::address::Address;
use tidekeeper::source::redis::config::{Place, Settings, read};

fn configured(text: &str) -> Result<Settings, Vec<Problem>> {
    let environment = |name: &str| (name == "PW").then(|| "from the environment".to_owned());
    let (node, problems) = yaml::parse(Path::new("/etc/tidekeeper/tidekeeper.yaml"), text, &environment);
    assert_eq!(problems, [], "it is YAML");
    read(&"redis-main".parse().expect("a name"), &node.expect("a node"))
}

fn good(text: &str) -> Settings {
    configured(text).unwrap_or_else(|problems| panic!("{problems:?}"))
}

#[test]
fn the_least_is_a_url() {
    let settings = good("url: redis://127.0.0.1:6379");
    assert_eq!(settings.place, Place::Fixed(Address::new("127.0.0.1", 6379)));
    assert_eq!((settings.access.password, settings.access.tls), (None, None));
    assert!(settings.prefer_replica);
    assert_eq!((settings.listen.port(), settings.advertise), (0, None));
}

#[test]
fn all_of_it_is_read_and_paths_start_beside_the_file() {
    let settings = good(
        "url: rediss://redis.prod.svc\nusername: backup\npassword_file: pw\nprefer_replica: false\n\
         tls: { ca_file: tls/ca.pem, cert_file: /abs/cert.pem, key_file: key.pem, server_name: r, insecure_skip_verify: true }\n\
         listen: 0.0.0.0:7600\nadvertise: tidekeeper.ops.svc:7600",
    );
    assert_eq!(settings.place, Place::Fixed(Address::new("redis.prod.svc", 6379)));
    assert_eq!(settings.access.username.as_deref(), Some("backup"));
    assert_eq!(settings.access.password, Some(Password::File(PathBuf::from("/etc/tidekeeper/pw"))));
    let tls = settings.access.tls.expect("rediss is TLS");
    assert_eq!(tls.ca_file, Some(PathBuf::from("/etc/tidekeeper/tls/ca.pem")));
    assert_eq!(tls.cert_file, Some(PathBuf::from("/abs/cert.pem")));
    assert_eq!(tls.server_name.as_deref(), Some("r"));
    assert!(tls.insecure_skip_verify && !settings.prefer_replica);
    assert_eq!(settings.listen.to_string(), "0.0.0.0:7600");
    assert_eq!(settings.advertise, Some(Address::new("tidekeeper.ops.svc", 7600)));
}

#[test]
fn sentinels_have_a_log_in_of_their_own_and_the_same_tls() {
    let settings = good(
        "sentinel: { master: mymaster, addresses: [a, \"b:7\", \"[fd00::1]:8\"], password: \"${PW}\" }\n\
         username: backup\npassword: other\ntls: { ca_file: ca.pem }",
    );
    let Place::Sentinel(sentinel) = &settings.place else { panic!("{settings:?}") };
    let addresses: Vec<String> = sentinel.addresses.iter().map(Address::to_string).collect();
    assert_eq!(addresses, ["a:26379", "b:7", "[fd00::1]:8"]);
    assert_eq!((&sentinel.access.username, &sentinel.access.tls), (&None, &settings.access.tls));
    let Some(Password::Given(secret)) = &sentinel.access.password else { panic!("{sentinel:?}") };
    assert_eq!(secret.expose(), "from the environment");
    assert!(!format!("{settings:?}").contains("environment"), "a secret is never shown");
}

#[test]
fn every_problem_has_its_place() {
    let cases = [
        ("username: u", "redis", "expected exactly one of url, sentinel, found neither"),
        ("url: redis://a\nsentinel: { master: m, addresses: [a] }", "redis", "found both"),
        ("url: http://a", "redis.url", "expected redis://host:port or rediss://host:port"),
        ("url: redis://user:hunter2@a", "redis.url", "credentials do not belong here"),
        ("url: redis://a/3", "redis.url", "leave /3 away"),
        ("url: redis://a:x", "redis.url", "is not an address"),
        ("url: redis://a:70000", "redis.url", "is not an address"),
        ("url: \"redis://\"", "redis.url", "is not an address"),
        ("url: redis://a\npasword_file: x", "redis.pasword_file", "password_file"),
        ("url: redis://a\npassword: a\npassword_file: b", "redis.password_file", "password is given too"),
        ("url: redis://a\nusername: b", "redis.username", "a user needs password or password_file"),
        ("url: redis://a\ntls: { ca_file: x }", "redis.tls", "write rediss://"),
        ("url: rediss://a\ntls: { cert_file: x }", "redis.tls", "cert_file and key_file belong together"),
        ("url: redis://a\nadvertise: b", "redis.advertise", "\"b\" has no port"),
        ("url: redis://a\nlisten: b", "redis.listen", "an address and a port"),
        ("sentinel: { master: m, addresses: [] }", "redis.sentinel.addresses", "at least 1"),
        (
            "sentinel: { master: m, addresses: [a, \"b c\"] }",
            "redis.sentinel.addresses[1]",
            "is not an address",
        ),
        ("sentinel: { addresses: [a] }", "redis.sentinel.master", "missing"),
    ];
    for (text, key, message) in cases {
        let problems = configured(text).expect_err(text);
        let found = problems.iter().find(|problem| problem.key == key && problem.message.contains(message));
        assert!(found.is_some(), "{text:?}: no {key} {message:?} in {problems:?}");
        assert!(!format!("{problems:?}").contains("hunter2"), "a password is never repeated");
    }
}

#[test]
fn all_problems_come_at_once_with_their_lines() {
    let problems = configured("url: http://a\nadvertise: b\nusername: u").expect_err("three problems");
    let mut lines: Vec<usize> = problems.iter().map(|problem| problem.span.line).collect();
    lines.sort_unstable();
    assert_eq!(lines, [1, 2, 3], "{problems:?}");
}

#[test]
fn the_schema_knows_every_key() {
    let schema = Redis.schema();
    let properties = schema["properties"].as_object().expect("an object");
    for key in [
        "url",
        "sentinel",
        "username",
        "password",
        "password_file",
        "tls",
        "prefer_replica",
        "listen",
        "advertise",
    ] {
        assert!(properties.contains_key(key), "{key}");
    }
    assert_eq!(schema["additionalProperties"], false);
}
