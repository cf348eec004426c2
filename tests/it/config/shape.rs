//! The walk of a tree of nodes against a type.

use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;
use tidekeeper::config::node::Node;
use tidekeeper::config::secret::Secret;
use tidekeeper::config::units::{Period, Size};
use tidekeeper::config::{shape, yaml};

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
struct Sample {
    url: String,
    #[serde(default)]
    password: Option<Secret>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    databases: u32,
    #[serde(default)]
    share: f64,
    #[serde(default)]
    tls: bool,
    #[serde(default)]
    timeout: Period,
    #[serde(default)]
    limit: Size,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    nodes: Vec<Inner>,
    #[serde(default)]
    either: Option<Either>,
}

/// How.
#[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Asks first.
    #[default]
    AskFirst,
    /// Does not.
    JustDo,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
struct Inner {
    host: String,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [{"required": ["left"]}, {"required": ["right"]}]))]
struct Either {
    left: Option<String>,
    right: Option<String>,
}

fn node(text: &str) -> Node {
    let env = |name: &str| (name == "PORT").then(|| "6379".to_owned());
    let (node, problems) = yaml::parse(Path::new("a.yaml"), text, &env);
    assert_eq!(problems, vec![]);
    node.expect("a tree")
}

fn problems(text: &str) -> Vec<String> {
    let found = shape::read::<Sample>(&node(text), "redis").expect_err("there are problems");
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn reads_what_fits() {
    let text = "{url: u, password: p, port: '${PORT}', databases: 0x10, share: 1, tls: 'true', \
                timeout: 1h30m, limit: 4GiB, mode: just_do, nodes: [{host: h}], either: {left: l}}";
    let sample: Sample = shape::read(&node(text), "").expect("all of it fits");
    assert_eq!(sample.port, Some(6379));
    assert_eq!((sample.databases, sample.share, sample.tls), (16, 1.0, true));
    assert_eq!(sample.timeout.0.as_secs(), 5400);
    assert_eq!(sample.limit, Size(4 << 30));
    assert_eq!(sample.mode, Mode::JustDo);
    assert_eq!(sample.nodes, [Inner { host: "h".into() }]);
    assert_eq!(sample.either, Some(Either { left: Some("l".into()), right: None }));
    assert!(!format!("{sample:?}").contains("\"p\""), "a secret shows in {sample:?}");
}

#[test]
fn keys_without_a_value_are_absent() {
    let sample: Sample = shape::read(&node("url: u\npassword:\nnodes: ~\n"), "").expect("all of it fits");
    assert_eq!((sample.password, sample.nodes.len()), (None, 0));
}

#[test]
fn finds_everything_at_once() {
    let text = "ulr: u\nport: 65536\ndatabases: -1\nshare: much\ntls: maybe\ntimeout: 5 parsecs\nlimit: -4\n\
                mode: jsut_do\nnodes: [{host: 1}, {}, 3]\neither: {left: l, right: r}\n\
                colour: red\npassword: 12\n";
    let expected = "\
a.yaml:1:1: redis.ulr: unknown key `ulr`; did you mean `url`?
a.yaml:2:7: redis.port: expected a number from 0 to 65535, found 65536
a.yaml:3:12: redis.databases: expected a number from 0 to 4294967295, found -1
a.yaml:4:8: redis.share: expected a number, found text
a.yaml:5:6: redis.tls: expected true or false, found text
a.yaml:6:10: redis.timeout: \"5 parsecs\" is not a duration: the units are ms, s, m, h, d, w; \
expected for example 30s, 5m, 1h30m or 7d
a.yaml:7:8: redis.limit: \"-4\" is not a size: expected a whole number and a unit; \
expected for example 512MiB, 4GiB or 10GB
a.yaml:8:7: redis.mode: unknown value `jsut_do`; did you mean `just_do`?
a.yaml:9:16: redis.nodes[0].host: expected text, found a whole number; put it in quotes
a.yaml:9:20: redis.nodes[1].host: missing; it is required
a.yaml:9:24: redis.nodes[2]: expected a map, found a whole number
a.yaml:10:9: redis.either: expected exactly one of left, right, found left and right
a.yaml:11:1: redis.colour: unknown key `colour`; expected one of databases, either, limit, mode, nodes, \
password, port, share, timeout, tls, url
a.yaml:12:11: redis.password: expected text, found a whole number; put it in quotes
a.yaml:1:1: redis.url: missing; it is required";
    assert_eq!(problems(text).join("\n"), expected);
}

#[test]
fn a_tree_shows_no_values() {
    let shown = format!("{:?}", node("{url: 'redis://:hunter2@h', list: [hunter2, 12345]}"));
    assert_eq!(shown, r#"{"url": <text>, "list": [<text>, <a whole number>]}"#);
}
