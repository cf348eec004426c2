//! What is said of wrong configurations: `fixtures/config/*.yaml`, and beside each a `.txt` with all of its
//! messages.
//!
//! After an intended change, `BLESS=1` writes the `.txt` files anew; read the difference before committing.

use std::path::{Path, PathBuf};

use tidekeeper::error::Kind;

const FOLDER: &str = "tests/it/fixtures/config";

fn fixtures() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(FOLDER).expect("the fixtures are there");
    let files = entries.map(|entry| entry.expect("a readable folder").path());
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|end| end == "yaml")).collect();
    files.sort();
    files
}

#[test]
fn every_wrong_configuration_says_all_that_is_wrong() {
    let mut wrong = Vec::new();
    for file in fixtures() {
        let error = super::load(&file).expect_err("the fixture is wrong on purpose");
        assert_eq!(error.kind(), Kind::Config);
        let said = format!("{error}\n").replace(&format!("{FOLDER}/"), "");
        let golden = file.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&golden, &said).expect("the fixtures can be written");
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if said != expected {
            wrong.push(format!("{}:\n--- expected\n{expected}--- said\n{said}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_message_shows_a_secret() {
    for file in fixtures() {
        let error = super::load(&file).expect_err("the fixture is wrong on purpose");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2"), "{}: {shown}", file.display());
        assert!(!shown.contains("AGE-SECRET"), "{}: {shown}", file.display());
    }
}

#[test]
fn a_missing_file_says_how_to_name_it() {
    let error = super::load(Path::new("no/such.yaml")).expect_err("it is not there");
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.hint_text().is_some_and(|hint| hint.contains("--config")), "{error:?}");
}

#[test]
fn a_huge_file_and_wrong_bytes_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("a.yaml");
    std::fs::write(&file, vec![b'#'; 2 << 20]).expect("writable");
    let error = super::load(&file).expect_err("it is huge").to_string();
    assert!(error.ends_with("it has 2097152 bytes; a configuration has at most 1048576"), "{error}");

    std::fs::write(&file, b"vault: \xff").expect("writable");
    let error = super::load(&file).expect_err("it is not text").to_string();
    assert!(error.contains("not UTF-8"), "{error}");
}
