//! Updates of all forms, applied to documents: against a naive model, and against what the forms' descriptions say.

use bytes::Bytes;
use mongodb::bson::{Bson, Decimal128, Document, RawDocumentBuf, bson, doc};
use proptest::prelude::*;
use tidekeeper::error::Kind;
use tidekeeper::source::mongodb::raw;
use tidekeeper::source::mongodb::replay::key::canonical;
use tidekeeper::source::mongodb::replay::update::{self, Form, applied};

fn bytes(document: &Document) -> Bytes {
    RawDocumentBuf::try_from(document).expect("a document").into_bytes().into()
}

fn document(bytes: &[u8]) -> Document {
    let raw = RawDocumentBuf::from_bytes(bytes.to_vec()).expect("a document");
    Document::try_from(raw).expect("a document")
}

fn after(before: Document, o: Document) -> Document {
    document(&applied(&bytes(&before), &bytes(&o)).expect("it is applied"))
}

#[test]
fn a_difference_keeps_the_order_of_fields() {
    let cases = [
        (doc! { "a": 1, "b": 2 }, doc! { "u": { "a": 9 }, "i": { "c": 3 } }, doc! { "a": 9, "b": 2, "c": 3 }),
        (doc! { "a": 1, "b": 2 }, doc! { "i": { "a": 9 } }, doc! { "b": 2, "a": 9 }),
        (doc! { "a": 1, "b": 2 }, doc! { "d": { "a": false } }, doc! { "b": 2 }),
        (doc! { "a": 1 }, doc! { "i": { "c": 3 }, "u": { "b": 2 } }, doc! { "a": 1, "b": 2, "c": 3 }),
        (doc! { "a": { "x": 1 } }, doc! { "sa": { "i": { "y": 2 } } }, doc! { "a": { "x": 1, "y": 2 } }),
        (doc! { "a": [1, 2] }, doc! { "sa": { "a": true, "l": 1 } }, doc! { "a": [1] }),
        (
            doc! { "a": [1] },
            doc! { "sa": { "a": true, "u3": 4 } },
            doc! { "a": [1, Bson::Null, Bson::Null, 4] },
        ),
        (doc! { "a": [1] }, doc! { "sa": { "a": true, "l": 3 } }, doc! { "a": [1, Bson::Null, Bson::Null] }),
        (
            doc! { "a": [{ "x": 1 }] },
            doc! { "sa": { "a": true, "s0": { "u": { "x": 2 } } } },
            doc! { "a": [{ "x": 2 }] },
        ),
        // Of another type than the difference was made for: a later entry says what it is.
        (doc! { "a": 1 }, doc! { "sa": { "i": { "y": 2 } } }, doc! { "a": 1 }),
        (doc! { "a": {} }, doc! { "sa": { "a": true, "l": 1 } }, doc! { "a": {} }),
    ];
    for (before, diff, expected) in cases {
        let o = doc! { "$v": 2, "diff": diff };
        assert_eq!(after(before, o.clone()), expected, "{o}");
    }
    let columns = |bytes: &[u8]| bson!({ "data": { "t": mongodb::bson::Binary { subtype: 7.into(), bytes: bytes.into() } } });
    let tail = mongodb::bson::Binary { subtype: 7.into(), bytes: vec![9, 9, 9] };
    let o = doc! { "$v": 2, "diff": { "sdata": { "b": { "t": { "o": 2, "d": tail } } } } };
    let before = columns(&[1, 2, 3]).as_document().expect("a document").clone();
    assert_eq!(Bson::Document(after(before, o)), columns(&[1, 2, 9, 9, 9]));
}

#[test]
fn the_forms_of_updates_are_told_apart() {
    let cases = [
        (doc! { "_id": 1, "diff": {} }, Form::Whole),
        (doc! {}, Form::Whole),
        (doc! { "$v": 1, "$set": { "a": 1 } }, Form::Modifiers),
        (doc! { "$set": { "a": 1 } }, Form::Modifiers),
        (doc! { "$v": 2, "diff": { "supdatedFields": {} } }, Form::Difference),
        (doc! { "$v": 2, "diff": { "removedFields": [] } }, Form::Description),
    ];
    for (o, expected) in cases {
        assert_eq!(update::form(&bytes(&o)).expect("a form"), expected, "{o}");
    }
    for unknown in [doc! { "$v": 3 }, doc! { "$v": 2 }] {
        assert_eq!(update::form(&bytes(&unknown)).expect_err("unknown").kind(), Kind::Unsupported);
    }
    for unknown in [doc! { "$v": 1, "$inc": { "a": 1 } }, doc! { "$v": 2, "diff": { "x": {} } }] {
        let error = applied(&bytes(&doc! {}), &bytes(&unknown)).expect_err("unknown");
        assert_eq!(error.kind(), Kind::Unsupported);
    }
}

#[test]
fn a_description_and_modifiers_change_by_path() {
    let before = || doc! { "_id": 1, "a": [1, { "x": 1 }, 3], "s": { "0": 1, "q": {} }, "t": 1 };
    let cases = [
        (
            doc! { "updatedFields": { "a.1.x": 2, "t": 2 } },
            doc! { "_id": 1, "a": [1, { "x": 2 }, 3], "s": { "0": 1, "q": {} }, "t": 2 },
        ),
        (
            doc! { "updatedFields": { "s.0": 7, "n.m": 1 } },
            doc! { "_id": 1, "a": [1, { "x": 1 }, 3], "s": { "0": 7, "q": {} }, "t": 1, "n": { "m": 1 } },
        ),
        (
            doc! { "updatedFields": { "a.4": 5 } },
            doc! { "_id": 1, "a": [1, { "x": 1 }, 3, Bson::Null, 5], "s": { "0": 1, "q": {} }, "t": 1 },
        ),
        (
            doc! { "updatedFields": {}, "removedFields": ["s.q", "t", "no.such"] },
            doc! { "_id": 1, "a": [1, { "x": 1 }, 3], "s": { "0": 1 } },
        ),
        (
            doc! { "updatedFields": { "a.0": 0 }, "truncatedArrays": [{ "field": "a", "newSize": 1 }], "disambiguatedPaths": {} },
            doc! { "_id": 1, "a": [0], "s": { "0": 1, "q": {} }, "t": 1 },
        ),
    ];
    for (diff, expected) in cases {
        let o = doc! { "$v": 2, "diff": diff };
        assert_eq!(after(before(), o.clone()), expected, "{o}");
    }
    let o = doc! { "$v": 1, "$set": { "a.0": 2, "z.0.y": 1 }, "$unset": { "t": true, "a.2": true } };
    let expected = doc! { "_id": 1, "a": [2, { "x": 1 }, Bson::Null], "s": { "0": 1, "q": {} }, "z": { "0": { "y": 1 } } };
    assert_eq!(after(before(), o), expected);
    let astray = doc! { "$v": 1, "$set": { "t.x": 1 } };
    assert_eq!(applied(&bytes(&before()), &bytes(&astray)).expect_err("no place").kind(), Kind::Damaged);
}

fn value() -> impl Strategy<Value = Bson> {
    let leaf = prop_oneof![
        any::<i32>().prop_map(Bson::Int32),
        (0i64..9).prop_map(Bson::Int64),
        Just(Bson::Null),
        "[a-c]{0,3}".prop_map(Bson::String),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Bson::Array),
            prop::collection::vec((field(), inner), 0..5)
                .prop_map(|fields| Bson::Document(fields.into_iter().collect())),
        ]
    })
}

/// Such as the words of differences too.
fn field() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "d", "i", "l", "u", "s", "b", "", "u0", "diff", "x"])
        .prop_map(str::to_owned)
}

fn whole() -> impl Strategy<Value = Document> {
    prop::collection::vec((field(), value()), 0..7).prop_map(|fields| fields.into_iter().collect())
}

/// As a server makes a difference: in step while the names agree; then what is left is new, and what is missing is gone.
fn difference(before: &Document, after: &Document) -> Document {
    let (mut changed, mut new, mut gone) = (Document::new(), Document::new(), Document::new());
    let mut inner = Document::new();
    let (old, now): (Vec<_>, Vec<_>) = (before.iter().collect(), after.iter().collect());
    let same = old.iter().zip(&now).take_while(|((a, _), (b, _))| a == b).count();
    for ((name, a), (_, b)) in old.iter().zip(&now).take(same).filter(|((_, a), (_, b))| a != b) {
        match part(a, b) {
            Some(part) => drop(inner.insert(format!("s{name}"), part)),
            None => drop(changed.insert(name.to_string(), (*b).clone())),
        }
    }
    for (name, _) in old.iter().skip(same).filter(|(name, _)| !after.contains_key(name)) {
        gone.insert(name.to_string(), false);
    }
    new.extend(now.iter().skip(same).map(|(name, value)| (name.to_string(), (*value).clone())));
    let mut diff = Document::new();
    for (section, fields) in [("d", gone), ("u", changed), ("i", new)] {
        if !fields.is_empty() {
            diff.insert(section, fields);
        }
    }
    diff.extend(inner);
    diff
}

fn part(before: &Bson, after: &Bson) -> Option<Document> {
    match (before, after) {
        (Bson::Document(before), Bson::Document(after)) => Some(difference(before, after)),
        (Bson::Array(before), Bson::Array(after)) => {
            let mut diff = doc! { "a": true };
            if after.len() < before.len() {
                diff.insert("l", after.len() as i32);
            }
            for (n, value) in after.iter().enumerate().filter(|(n, value)| before.get(*n) != Some(value)) {
                match before.get(n).and_then(|before| part(before, value)) {
                    Some(part) => drop(diff.insert(format!("s{n}"), part)),
                    None => drop(diff.insert(format!("u{n}"), value.clone())),
                }
            }
            Some(diff)
        }
        _ => None,
    }
}

/// The naive way to set or unset what a path names; None where it leads through another value.
fn edit(at: &mut Bson, path: &[&str], new: Option<&Bson>) -> Option<()> {
    let (first, rest) = path.split_first()?;
    match at {
        Bson::Document(document) => match (rest, new) {
            ([], Some(new)) => drop(document.insert(*first, new.clone())),
            ([], None) => drop(document.remove(first)),
            (_, None) if !document.contains_key(first) => {}
            _ => {
                return edit(
                    document.entry((*first).to_owned()).or_insert(Bson::Document(Document::new())),
                    rest,
                    new,
                );
            }
        },
        Bson::Array(array) => {
            let Ok(n) = first.parse::<usize>() else { return new.is_none().then_some(()) };
            if n >= array.len() && new.is_none() {
                return Some(());
            }
            let missing = n >= array.len();
            array.resize(array.len().max(n + 1), Bson::Null);
            match rest {
                [] => array[n] = new.cloned().unwrap_or(Bson::Null),
                _ if missing => {
                    array[n] = Bson::Document(Document::new());
                    return edit(&mut array[n], rest, new);
                }
                _ => return edit(&mut array[n], rest, new),
            }
        }
        _ if new.is_none() => {}
        _ => return None,
    }
    Some(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_difference_leads_from_any_document_to_any_other(before in whole(), now in whole()) {
        let o = doc! { "$v": 2, "diff": difference(&before, &now) };
        prop_assume!(update::form(&bytes(&o)).expect("a form") == Form::Difference);
        let found = applied(&bytes(&before), &bytes(&o)).expect("it is applied");
        prop_assert_eq!(document(&found), now.clone(), "{}", o);
        prop_assert_eq!(found, bytes(&now));
    }

    #[test]
    fn paths_do_what_they_do_one_by_one(
        before in whole(),
        edits in prop::collection::btree_map("[adils]", ("(\\.[adx012]){0,3}", prop::option::of(value())), 1..4),
    ) {
        let mut model = Some(Bson::Document(before.clone()));
        let (mut set, mut unset) = (Document::new(), Document::new());
        for (first, (rest, new)) in &edits {
            let path = format!("{first}{rest}");
            match new {
                Some(new) => drop(set.insert(path, new.clone())),
                None => drop(unset.insert(path, true)),
            }
        }
        for (path, new) in set.iter().map(|(path, new)| (path, Some(new))).chain(unset.keys().map(|path| (path, None))) {
            let path: Vec<_> = path.split('.').collect();
            model = model.and_then(|mut model| edit(&mut model, &path, new).map(|()| model));
        }
        let removed: Vec<_> = unset.keys().cloned().collect();
        let forms = [
            doc! { "$v": 1, "$set": set.clone(), "$unset": unset },
            doc! { "$v": 2, "diff": { "updatedFields": set, "removedFields": removed } },
        ];
        for o in forms {
            match (applied(&bytes(&before), &bytes(&o)), &model) {
                (Ok(found), Some(model)) => prop_assert_eq!(Bson::Document(document(&found)), model.clone(), "{}", o),
                (Err(error), None) => prop_assert_eq!(error.kind(), Kind::Damaged),
                (found, model) => prop_assert!(false, "{found:?} {model:?} {o}"),
            }
        }
    }
}

#[test]
fn ids_are_the_same_by_value() {
    let decimal = |text: &str| Bson::Decimal128(text.parse::<Decimal128>().expect("a decimal"));
    let key = |id: &Bson| {
        let document = bytes(&doc! { "_id": id.clone() });
        canonical(raw::field(&document, "_id").expect("a document").expect("an _id"))
    };
    let classes = [
        vec![bson!(1), bson!(1_i64), bson!(1.0), decimal("1"), decimal("1.00"), decimal("0.1E1")],
        vec![bson!(-1), bson!(-1.0), decimal("-1")],
        vec![bson!(0), bson!(-0.0), decimal("0"), decimal("-0E5")],
        vec![bson!(0.5), decimal("0.5"), decimal("0.50")],
        vec![bson!(0.1), decimal("0.1000000000000000055511151231257827")][..1].to_vec(),
        vec![decimal("0.1"), decimal("0.10"), decimal("1E-1")],
        vec![bson!(1_i64 << 53), bson!((1_i64 << 53) as f64), decimal("9007199254740992")],
        vec![bson!((1_i64 << 53) + 1), decimal("9007199254740993")],
        vec![bson!(f64::NAN), decimal("NaN")],
        vec![bson!(f64::INFINITY), decimal("Infinity")],
        vec![bson!(f64::NEG_INFINITY), decimal("-Infinity")],
        vec![bson!(1e300)],
        vec![decimal("1E300"), decimal("10E299")],
        vec![decimal("1E6000")],
        vec![bson!(5e-324)],
        vec![bson!("1"), Bson::Symbol("1".to_owned())],
        vec![
            bson!({ "a": 1, "b": [1, { "c": 2 }] }),
            bson!({ "a": 1.0, "b": [1_i64, { "c": decimal("2.0") }] }),
        ],
        vec![bson!({ "b": [1, { "c": 2 }], "a": 1 })],
        vec![bson!({ "a": 1, "b": [1, { "d": 2 }] })],
        vec![bson!([1])],
        vec![Bson::Null],
        vec![bson!(true)],
        vec![bson!(false)],
    ];
    for (n, class) in classes.iter().enumerate() {
        for (m, other) in classes.iter().enumerate() {
            for (a, b) in class.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
                assert_eq!(key(a) == key(b), n == m, "{a:?} and {b:?}");
            }
        }
    }
}
