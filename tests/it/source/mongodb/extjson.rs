//! Canonical Extended JSON, letter by letter as the stock tools print it.

use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{
    Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, RawDocumentBuf, Regex, Timestamp,
    doc, oid::ObjectId, raw::CString,
};
use proptest::prelude::*;
use tidekeeper::error::Kind;
use tidekeeper::source::mongodb::extjson;

fn text(document: &Document) -> String {
    let raw = RawDocumentBuf::try_from(document).expect("it is BSON");
    let mut text = String::new();
    extjson::document(raw.as_bytes(), &mut text).expect("it is written");
    text
}

fn value(value: impl Into<Bson>) -> String {
    let text = text(&doc! { "v": value.into() });
    text.strip_prefix("{\"v\":").and_then(|text| text.strip_suffix('}')).expect("one field").to_owned()
}

#[test]
fn doubles_are_those_of_go() {
    let cases = [
        (1.5, "1.5"),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (100_000.0, "100000.0"),
        (999_999.0, "999999.0"),
        (1e6, "1E+06"),
        (1_048_576.0, "1.048576E+06"),
        (123_456_789.5, "1.234567895E+08"),
        (1e21, "1E+21"),
        (0.0001, "0.0001"),
        (0.00001, "1E-05"),
        (-1.5e-300, "-1.5E-300"),
        (f64::INFINITY, "Infinity"),
        (f64::NEG_INFINITY, "-Infinity"),
        (f64::NAN, "NaN"),
    ];
    for (double, expected) in cases {
        assert_eq!(value(double), format!("{{\"$numberDouble\":\"{expected}\"}}"));
    }
}

#[test]
fn every_type_has_its_form() {
    let id = ObjectId::from_bytes([1; 12]);
    let binary = |subtype, bytes: &[u8]| Binary { subtype, bytes: bytes.to_vec() };
    let cstring = |text: &str| CString::try_from(text).expect("it holds no NUL");
    let cases: Vec<(Bson, &str)> = vec![
        (Bson::Int32(-5), r#"{"$numberInt":"-5"}"#),
        (Bson::Int64(5), r#"{"$numberLong":"5"}"#),
        (Bson::Boolean(true), "true"),
        (Bson::Null, "null"),
        (Bson::Undefined, r#"{"$undefined":true}"#),
        (Bson::ObjectId(id), r#"{"$oid":"010101010101010101010101"}"#),
        (Bson::DateTime(DateTime::from_millis(-1)), r#"{"$date":{"$numberLong":"-1"}}"#),
        (
            Bson::Binary(binary(BinarySubtype::Uuid, &[1, 2, 3])),
            r#"{"$binary":{"base64":"AQID","subType":"04"}}"#,
        ),
        (
            Bson::Binary(binary(BinarySubtype::BinaryOld, &[1])),
            r#"{"$binary":{"base64":"AQ==","subType":"02"}}"#,
        ),
        (
            Bson::RegularExpression(Regex { pattern: cstring("a/b"), options: cstring("ix") }),
            r#"{"$regularExpression":{"pattern":"a/b","options":"ix"}}"#,
        ),
        (
            Bson::Timestamp(Timestamp { time: u32::MAX, increment: 2 }),
            r#"{"$timestamp":{"t":4294967295,"i":2}}"#,
        ),
        (Bson::Decimal128("1.20".parse::<Decimal128>().expect("a decimal")), r#"{"$numberDecimal":"1.20"}"#),
        (Bson::MinKey, r#"{"$minKey":1}"#),
        (Bson::MaxKey, r#"{"$maxKey":1}"#),
        (Bson::JavaScriptCode("x".to_owned()), r#"{"$code":"x"}"#),
        (Bson::Symbol("s".to_owned()), r#"{"$symbol":"s"}"#),
        (
            Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope {
                code: "x".to_owned(),
                scope: doc! { "a": 1 },
            }),
            r#"{"$code":"x","$scope":{"a":{"$numberInt":"1"}}}"#,
        ),
        (Bson::Array(vec![Bson::Array(vec![]), Bson::Document(doc! {})]), "[[],{}]"),
        (
            Bson::String("\"\\\n\r\t\u{8}\u{c}\0\u{2028}é/<&>\u{7f}".to_owned()),
            "\"\\\"\\\\\\n\\r\\t\\b\\f\\u0000\\u2028é/<&>\u{7f}\"",
        ),
    ];
    for (bson, expected) in cases {
        assert_eq!(value(bson.clone()), expected, "{bson:?}");
    }
}

#[test]
fn doubled_names_and_their_order_stay() {
    // {b: null, a: true, b: false}
    let bytes = b"\x10\0\0\0\x0ab\0\x08a\0\x01\x08b\0\0\0";
    let mut written = String::new();
    extjson::document(bytes, &mut written).expect("it is written");
    assert_eq!(written, r#"{"b":null,"a":true,"b":false}"#);
}

#[test]
fn what_is_no_bson_is_damaged() {
    for bytes in
        [&b"\x09\0\0\0\x10a\0\x01\0"[..], b"\x09\0\0\0\x55a\0\x01\0", b"\x0c\0\0\0\x02a\0\xff\xff\xff\xff\0"]
    {
        let error = extjson::document(bytes, &mut String::new()).expect_err("it must fail");
        assert_eq!(error.kind(), Kind::Damaged, "{error:?}");
    }
}

fn any_bson() -> impl Strategy<Value = Bson> {
    let leaf = prop_oneof![
        any::<i32>().prop_map(Bson::Int32),
        any::<i64>().prop_map(Bson::Int64),
        any::<f64>()
            .prop_filter("NaN is not equal to itself", |double| !double.is_nan())
            .prop_map(Bson::Double),
        ".{0,8}".prop_map(Bson::String),
        any::<bool>().prop_map(Bson::Boolean),
        any::<[u8; 12]>().prop_map(|bytes| Bson::ObjectId(ObjectId::from_bytes(bytes))),
        any::<i64>().prop_map(|millis| Bson::DateTime(DateTime::from_millis(millis))),
        prop::collection::vec(any::<u8>(), 0..9)
            .prop_map(|bytes| Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes })),
        Just(Bson::Null),
        Just(Bson::MinKey),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let name = "[a-z]{1,4}";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Bson::Array),
            prop::collection::vec((name, inner), 0..4)
                .prop_map(|fields| Bson::Document(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    /// What is written is read back as the same by whoever reads Extended JSON.
    #[test]
    fn it_is_read_back(bson in any_bson()) {
        let document = doc! { "v": bson };
        let read: Bson = serde_json::from_str(&text(&document)).expect("it is Extended JSON");
        prop_assert_eq!(read, Bson::Document(document));
    }
}
