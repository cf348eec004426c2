//! Which namespaces are wanted, and under which names.

use proptest::prelude::*;
use tidekeeper::error::Kind;
use tidekeeper::source::mongodb::namespace::Namespace;
use tidekeeper::source::mongodb::selection::{Selection, What};

fn selection(include: &[&str], rename: &[&str]) -> Selection {
    let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    Selection::parse(&owned(include), &owned(rename)).expect("it is meant")
}

fn target(selection: &Selection, source: &str) -> Option<String> {
    selection.target(&Namespace::parse(source).expect("a namespace")).map(|ns| ns.to_string())
}

#[test]
fn patterns_and_renames_decide() {
    let cases = [
        (&[][..], &[][..], "a.b", Some("a.b")),
        (&["shop"], &[], "shop.orders", Some("shop.orders")),
        (&["shop"], &[], "shop2.orders", None),
        (&["shop.*"], &[], "shop.a.b", Some("shop.a.b")),
        (&["shop.ord*s"], &[], "shop.orders", Some("shop.orders")),
        (&["shop.ord*s"], &[], "shop.order", None),
        (&["*.users"], &[], "crm.users", Some("crm.users")),
        (&["shop.orders"], &[], "shop.system.buckets.orders", Some("shop.system.buckets.orders")),
        (
            &["shop.orders"],
            &["shop.orders=shop.old"],
            "shop.system.buckets.orders",
            Some("shop.system.buckets.old"),
        ),
        (&[], &["shop=shop2"], "shop.x", Some("shop2.x")),
        (&[], &["shop=shop2", "shop.x=other.y"], "shop.x", Some("other.y")),
        (&["shop.x"], &["shop=shop2"], "shop.y", None),
    ];
    for (include, rename, source, expected) in cases {
        assert_eq!(
            target(&selection(include, rename), source).as_deref(),
            expected,
            "{include:?} {rename:?} {source}"
        );
    }
    assert!(selection(&[], &[]).is_everything());
    assert!(!selection(&[], &["a=b"]).is_everything());
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let wrong = [
        "a",
        "a=a",
        "a=b=c",
        "a=b.c",
        "a.b=c",
        "a=",
        "=b",
        "a.*=b.*",
        "a.b=c.system.x",
        "a=local",
        "a=x y",
        "a.b=.c",
        "a.b=c.d$e",
        "a.b=c.x\0y",
    ];
    for rename in wrong {
        let error = Selection::parse(&[], &[rename.to_owned()]).expect_err(rename);
        assert_eq!(error.kind(), Kind::Usage, "{rename}");
    }
    let twice = ["a=c".to_owned(), "b=c".to_owned()];
    assert!(Selection::parse(&[], &twice).is_err(), "two would become one");
    assert!(Selection::parse(&[], &["a=b".to_owned(), "a=c".to_owned()]).is_err(), "one would become two");
    for include in ["", ".x", "x."] {
        assert!(Selection::parse(&[include.to_owned()], &[]).is_err(), "{include:?}");
    }
}

#[test]
fn names_that_clash_or_match_nothing_are_found() {
    let names: Vec<_> = ["a.x", "b.x", "b.y"].map(|name| Namespace::parse(name).expect("a name")).into();
    let clash = selection(&[], &["a=b"]).clash(&names).expect("a.x and b.x");
    assert_eq!(clash.to_string(), "a.x and b.x would both become b.x");
    assert_eq!(selection(&[], &["a=c"]).clash(&names), None);
    let idle = |include: &[&str], rename: &[&str]| {
        let idle = selection(include, rename).idle(names.iter());
        idle.into_iter().map(|idle| (idle.what, idle.name)).collect::<Vec<_>>()
    };
    let told = |what, name: &str| (what, name.to_owned());
    let expected = [told(What::Include, "c"), told(What::Rename, "b.z")];
    assert_eq!(idle(&["a", "b", "c.*"], &["b.z=b.w"]), expected);
    let left_out = [told(What::RenameOfLeftOut, "b"), told(What::RenameOfLeftOut, "b.x")];
    assert_eq!(idle(&["a"], &["b=d", "b.x=b.z"]), left_out);
    assert_eq!(idle(&["*.x"], &["a.x=a.y", "b=d"]), []);
    let long = selection(&[], &["a=abcdef"]);
    let name = Namespace::new("a", "x".repeat(253));
    assert_eq!(long.too_long([&name, &names[0]].into_iter()), [Namespace::new("abcdef", &*name.collection)]);
    let whole = format!("a.b=a.{}", "x".repeat(254));
    assert!(Selection::parse(&[], &[whole]).is_err(), "no server takes it");
}

#[test]
fn what_could_have_been_brought_to_a_name_is_known() {
    let reaches = |include: &[&str], rename: &[&str], target: &str| {
        selection(include, rename).reaches(&Namespace::parse(target).expect("a namespace"))
    };
    for (include, rename, target, expected) in [
        (&[][..], &[][..], "shop.new", true),
        (&["shop"], &[], "shop.new", true),
        (&["shop.orders"], &[], "shop.new", false),
        (&["shop"], &[], "hr.new", false),
        (&["shop"], &["shop=old"], "old.new", true),
        (&["shop"], &["shop=old"], "shop.new", false),
        (&["shop"], &["shop.a=x.b"], "x.b", true),
        (&["shop"], &["shop.a=x.b"], "x.c", false),
        (&["shop"], &["shop.a=x.b"], "shop.a", false),
    ] {
        assert_eq!(reaches(include, rename, target), expected, "{include:?} {rename:?} {target}");
    }
}

/// The pattern as a set of choices: the naive way.
fn matches(pattern: &[char], name: &[char]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), Some((_, tail))) => matches(rest, name) || matches(pattern, tail),
        (Some(('*', rest)), None) => matches(rest, name),
        (Some((a, rest)), Some((b, tail))) => a == b && matches(rest, tail),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    #[test]
    fn a_star_stands_for_anything(pattern in "[ab*]{1,8}", name in "[ab]{1,10}") {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let selection = selection(&[&format!("db.{pattern}")], &[]);
        let found = selection.target(&Namespace::new("db", &*name)).is_some();
        prop_assert_eq!(found, matches(&chars(&pattern), &chars(&name)));
    }
}
