//! YAML text to nodes.

use std::path::Path;

use proptest::prelude::*;
use tidekeeper::config::node::{Node, Value};
use tidekeeper::config::yaml;

fn env(name: &str) -> Option<String> {
    (name == "A").then(|| "${A} 1".to_owned())
}

fn parse(text: &str) -> Node {
    let (node, problems) = yaml::parse(Path::new("a.yaml"), text, &env);
    assert_eq!(problems, vec![], "{text}");
    node.expect("a tree")
}

#[test]
fn plain_scalars_mean_what_the_core_schema_says() {
    let shown = |text: &str| format!("{:?}", parse(text));
    for (text, kind) in [
        ("~", "<nothing>"),
        ("true", "<true or false>"),
        ("yes", "<text>"),
        ("on", "<text>"),
        ("12", "<a whole number>"),
        ("0x1f", "<a whole number>"),
        ("012", "<a whole number>"),
        ("1e3", "<a number>"),
        ("1.10", "<a number>"),
        ("1_000", "<text>"),
        ("2026-11-21", "<text>"),
        ("infinity", "<text>"),
        ("'12'", "<text>"),
        ("!!str 12", "<text>"),
        ("99999999999999999999", "<a number>"),
    ] {
        assert_eq!(shown(text), kind, "{text}");
    }
}

#[test]
fn the_environment_is_put_in_once_and_always_as_text() {
    for (text, expected) in [
        ("${A}", "${A} 1"),
        ("'x${A}y${A}'", "x${A} 1y${A} 1"),
        ("$${A} $5 $", "${A} $5 $"),
        ("|\n  a ${A}\n  b\n", "a ${A} 1\nb\n"),
    ] {
        match parse(text).value {
            Value::Text(found) => assert_eq!(found, expected),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn places_are_those_of_an_editor() {
    let root = parse("# c\nä: 1\nlist:\n- one\n-   { k:   v }\n");
    let at = |node: &Node| (node.span.line, node.span.column);
    assert_eq!(at(root.get("ä").expect("it is there")), (2, 4));
    let items = root.get("list").expect("it is there").items();
    assert_eq!(at(&items[0]), (4, 3));
    assert_eq!(at(items[1].get("k").expect("it is there")), (5, 12));
}

#[test]
fn an_alias_stands_where_it_is_used() {
    let root = parse("a: &x { k: v }\nb: *x\n");
    let alias = root.get("b").expect("it is there");
    assert_eq!((alias.span.line, alias.span.column), (2, 4));
    assert_eq!(alias.get("k").map(|inner| inner.span.line), Some(1));
}

proptest! {
    #[test]
    fn no_text_panics(
        text in "\\PC{0,80}|([ \\n\\t:\\-{}\\[\\]&*!|>'\"%#$?,~a-c0-9]|\\$\\{|: |- |\\n  ){0,60}",
    ) {
        let _ = yaml::parse(Path::new("a.yaml"), &text, &env);
    }

    #[test]
    fn no_bytes_of_a_configuration_panic(cut in 0usize..400, insert in "\\PC{0,6}|[\\n :{}\\[\\]&*-]{0,6}") {
        let text = include_str!("../fixtures/config/schedules.d/a.yaml");
        let at = (0..=cut.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let _ = yaml::parse(Path::new("a.yaml"), &format!("{}{insert}{}", &text[..at], &text[at..]), &env);
        let _ = yaml::parse(Path::new("a.yaml"), &text[..at], &env);
    }
}
