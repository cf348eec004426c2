//! What may be wished of a restore, and what cannot be meant.

use serde_json::{Value, json};
use tidekeeper::error::{Error, Kind};
use tidekeeper::source::Wish;
use tidekeeper::source::mongodb::optime::OpTime;
use tidekeeper::source::mongodb::wish::{Options, parse_optime};

fn read(options: Value) -> Result<Options, Error> {
    let Value::Object(options) = options else { panic!("options are an object") };
    Options::read(&Wish { options })
}

#[test]
fn nothing_wished_is_everything_and_nothing_dropped() {
    let options = read(json!({})).expect("it can be meant");
    assert_eq!(options, Options::default());
    assert!(!options.drop && options.include.is_empty() && options.users.is_none());
}

#[test]
fn each_option_is_read_as_text_or_as_it_is() {
    let options = read(json!({
        "include": ["shop", "hr.*"], "rename": "shop=old", "drop": "true", "users": false,
        "until": "1764301234:5", "workers": "2",
    }))
    .expect("it can be meant");
    assert_eq!(options.include, ["shop", "hr.*"]);
    assert_eq!(options.rename, ["shop=old"]);
    assert!(options.drop);
    assert_eq!(options.users, Some(false));
    assert_eq!(options.until, Some(OpTime { seconds: 1_764_301_234, increment: 5 }));
    assert_eq!(options.workers, 2);
}

#[test]
fn what_cannot_be_meant_is_named() {
    for (options, part) in [
        (json!({ "include": [] }), "include is []"),
        (json!({ "include": ["shop", ""] }), "expected was patterns"),
        (json!({ "drop": "yes" }), "true or false"),
        (json!({ "until": "2026-11-28T00:00:00Z" }), "an opTime"),
        (json!({ "until": "12:-1" }), "an opTime"),
        (json!({ "workers": 0 }), "from 1 to 16"),
        (json!({ "workers": "17" }), "from 1 to 16"),
    ] {
        let error = read(options.clone()).expect_err("it cannot be meant");
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.why().contains(part), "{options}: {error}");
    }
    let error = read(json!({ "includes": "shop" })).expect_err("there is no such option");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("did you mean \"include\"?")), "{error:?}");
}

#[test]
fn an_optime_is_two_numbers() {
    for text in ["", "1", "1:", ":1", "1:2:3", "+1:2", "1:4294967296", " 1:2"] {
        assert_eq!(parse_optime(text), None, "{text:?}");
    }
    let last = OpTime { seconds: u32::MAX, increment: u32::MAX };
    assert_eq!(parse_optime(&last.to_string()), Some(last));
}
