//! Names of files as the stock tools make them: each case was seen in what mongodump wrote.

use proptest::prelude::*;
use tidekeeper::source::mongodb::namespace::{Namespace, collection_of_file, file_name, is_cut};

#[test]
fn names_are_escaped_as_in_the_query_of_a_url() {
    let cases = [
        ("users", "users"),
        ("dot.ted.name", "dot.ted.name"),
        ("system.js", "system.js"),
        ("a b%c", "a+b%25c"),
        ("x/y", "x%2Fy"),
        (r"sl\ash", "sl%5Cash"),
        ("hé中", "h%C3%A9%E4%B8%AD"),
        ("star*q?", "star%2Aq%3F"),
        ("C:olon", "C%3Aolon"),
        ("plus+&=~-_.!*'()", "plus%2B%26%3D~-_.%21%2A%27%28%29"),
        ("$x", "%24x"),
        ("..", ".."),
        ("tab\tnew\nline\u{7f}", "tab%09new%0Aline%7F"),
    ];
    for (collection, stem) in cases {
        assert_eq!(file_name(collection), stem);
        assert_eq!(collection_of_file(stem, None).as_deref(), Some(collection));
        assert_eq!(collection_of_file(stem, Some(collection)).as_deref(), Some(collection));
    }
}

#[test]
fn a_long_name_is_cut_and_gets_a_hash() {
    let long = |kept: String, hash: &str| format!("{kept}%24{hash}");
    let cases = [
        ("b".repeat(239), long("b".repeat(208), "-DSAoYS6mqBNjQCmxhOV8Yp8lwU")),
        ("t".repeat(239), long("t".repeat(208), "8hrDSOcr1g2o_pxtIC0Xc0ToZpk")),
        ("中".repeat(40), long(format!("{}%", "%E4%B8%AD".repeat(23)), "LeJvoBALBX3rTu1f7IomY5cGtIo")),
    ];
    for (collection, stem) in cases {
        assert_eq!(file_name(&collection), stem);
        assert_eq!(stem.len(), 238);
        assert!(is_cut(&stem));
        assert_eq!(collection_of_file(&stem, None), None, "nothing tells the name");
        assert_eq!(collection_of_file(&stem, Some(&collection)), Some(collection));
    }
    let longest = "b".repeat(238);
    assert_eq!(file_name(&longest), longest);
    assert!(!is_cut(&longest));
}

#[test]
fn a_stem_that_is_none_names_no_collection() {
    for stem in ["100%", "a%2", "a%zz", "%FF", "%+1"] {
        assert_eq!(collection_of_file(stem, None), None, "{stem}");
    }
    assert_eq!(collection_of_file("users", Some("orders")), None, "the metadata is of another collection");
}

#[test]
fn a_namespace_is_split_at_its_first_dot() {
    let namespace = Namespace::parse("shop.system.buckets.x").expect("a namespace");
    assert_eq!(namespace, Namespace::new("shop", "system.buckets.x"));
    assert_eq!(namespace.to_string(), "shop.system.buckets.x");
    assert_eq!(Namespace::new("shop", "a/b").file_stem(), "shop/a%2Fb");
    for text in ["shop", ".x", "shop.", ""] {
        assert_eq!(Namespace::parse(text), None, "{text:?}");
    }
}

proptest! {
    #[test]
    fn every_name_is_a_path_safe_file_and_comes_back(collection in "[^\0$]{1,120}") {
        let stem = file_name(&collection);
        prop_assert!(stem.len() <= 238);
        prop_assert!(stem.bytes().all(|byte| byte.is_ascii_graphic() && !b"/\\:*?\"<>|".contains(&byte)));
        prop_assert_eq!(collection_of_file(&stem, Some(&collection)), Some(collection.clone()));
        if !is_cut(&stem) {
            prop_assert_eq!(collection_of_file(&stem, None), Some(collection));
        }
    }
}
