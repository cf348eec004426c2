//! The catalogue of indexes, edited by the log.

use mongodb::bson::{Document, RawDocumentBuf, doc};
use tidekeeper::error::Result;
use tidekeeper::source::mongodb::indexes::Catalogue;
use tidekeeper::source::mongodb::namespace::Namespace;

fn bytes(document: &Document) -> Vec<u8> {
    RawDocumentBuf::try_from(document).expect("a document").into_bytes()
}

fn ns(name: &str) -> Namespace {
    Namespace::new("db", name)
}

fn specs(catalogue: &Catalogue, name: &str) -> Vec<Document> {
    let document = |bytes: &[u8]| RawDocumentBuf::from_bytes(bytes.to_vec()).expect("a document");
    catalogue
        .of(&ns(name))
        .iter()
        .map(|spec| Document::try_from(document(spec)).expect("a document"))
        .collect()
}

fn edit(catalogue: &mut Catalogue, name: &str, o: Document) -> Result<()> {
    let command = o.keys().next().expect("a command").clone();
    catalogue.edit(&ns(name), false, &command, &bytes(&o))
}

fn index(name: &str) -> Document {
    doc! { "v": 2, "key": { name: 1 }, "name": name }
}

#[test]
fn both_ways_of_making_an_index_are_understood() {
    let mut catalogue = Catalogue::default();
    let mut edit = |o: Document| edit(&mut catalogue, "c", o).expect("it is read");
    edit(
        doc! { "createIndexes": "c", "v": 2, "key": { "a": 1 }, "name": "a", "hidden": true, "weights": { "x": 1 } },
    );
    edit(
        doc! { "createIndexes": "c", "indexes": [{ "v": 2, "key": { "b": 1 }, "name": "b", "entryFormat": 4 }] },
    );
    edit(doc! { "commitIndexBuild": "c", "indexBuildUUID": 1, "indexes": [index("d"), index("e")] });
    edit(doc! { "createIndexes": "c", "v": 0, "key": { "_id": 1 }, "name": "_id_" });
    edit(
        doc! { "createIndexes": "c", "v": 0, "key": { "f": 1 }, "name": "f", "unique": 1, "ns": "db.c", "sparse": 0.0 },
    );
    let expected = [
        doc! { "v": 2, "key": { "a": 1 }, "name": "a", "hidden": true, "weights": { "x": 1 } },
        index("b"),
        index("d"),
        index("e"),
        doc! { "key": { "f": 1 }, "name": "f", "unique": true, "sparse": false },
    ];
    assert_eq!(specs(&catalogue, "c"), expected);
}

#[test]
fn indexes_go_by_name_by_list_by_key_and_all_at_once() {
    let mut catalogue = Catalogue::default();
    for name in ["a", "b", "c", "d", "e"] {
        catalogue.add(&ns("c"), &bytes(&index(name))).expect("it is added");
    }
    let mut gone = |command: &str, which: mongodb::bson::Bson, left: &[&str]| {
        edit(&mut catalogue, "c", doc! { command: "c", "index": which }).expect("it is read");
        let names: Vec<_> = specs(&catalogue, "c")
            .iter()
            .map(|spec| spec.get_str("name").expect("a name").to_owned())
            .collect();
        assert_eq!(names, left);
    };
    gone("dropIndexes", "a".into(), &["b", "c", "d", "e"]);
    gone("deleteIndexes", "no such".into(), &["b", "c", "d", "e"]);
    gone("dropIndexes", vec!["b", "d"].into(), &["c", "e"]);
    gone("dropIndexes", doc! { "c": 1 }.into(), &["e"]);
    gone("dropIndexes", "*".into(), &[]);
}

#[test]
fn options_change_in_their_place() {
    let mut catalogue = Catalogue::default();
    let ttl = doc! { "v": 2, "key": { "t": 1 }, "name": "t", "expireAfterSeconds": 60, "sparse": true };
    catalogue.add(&ns("c"), &bytes(&ttl)).expect("it is added");
    let mut edit = |change: Document| {
        edit(&mut catalogue, "c", doc! { "collMod": "c", "index": change }).expect("it is read")
    };
    edit(doc! { "name": "t", "expireAfterSeconds": 99_i64 });
    edit(doc! { "keyPattern": { "t": 1 }, "hidden": true, "prepareUnique": true });
    edit(doc! { "name": "t", "unique": true });
    edit(doc! { "name": "another", "hidden": false });
    edit(doc! { "name": "t", "hidden": false });
    let expected = doc! { "v": 2, "key": { "t": 1 }, "name": "t", "expireAfterSeconds": 99_i64, "sparse": true, "unique": true };
    assert_eq!(specs(&catalogue, "c"), [expected]);
}

#[test]
fn they_follow_their_collection() {
    let mut catalogue = Catalogue::default();
    catalogue.add(&ns("from"), &bytes(&index("a"))).expect("it is added");
    catalogue.add(&ns("to"), &bytes(&index("b"))).expect("it is added");
    catalogue.set_expiry(&ns("from"), Some(60));
    catalogue.rename(&ns("from"), &ns("to"));
    assert_eq!(specs(&catalogue, "to"), [index("a")]);
    assert_eq!(catalogue.expiries().collect::<Vec<_>>(), [(&ns("to"), 60)]);
    catalogue.rename(&ns("none"), &ns("to"));
    assert_eq!(catalogue, Catalogue::default());
}
