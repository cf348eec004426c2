//! From an empty folder to backups that are listed, shown, checked and extracted.

use crate::harness::cli::Cli;
use crate::harness::redis::RedisServer;

async fn filled() -> (RedisServer, Cli) {
    let server = RedisServer::start(&[]).await;
    let mut connection = server.connect().await;
    let () =
        redis::cmd("DEBUG").arg("POPULATE").arg(1000).query_async(&mut connection).await.expect("allowed");
    let cli = Cli::of_redis(&server.url());
    (server, cli)
}

#[tokio::test]
async fn init_makes_a_vault_once() {
    let cli = Cli::new(&[]);
    let first = cli.run(&["init", "--vault", "vault", "--json"]).await.exits(0).json();
    assert_eq!(first["created"], true, "{first}");
    assert!(first["findings"].as_array().is_some_and(|findings| !findings.is_empty()), "{first}");
    let again = cli.run(&["init", "--vault", "vault", "--json"]).await.exits(0).json();
    assert_eq!(again["created"], false, "{again}");
    let text = cli.run(&["backups", "--vault", "vault"]).await.exits(0).stdout;
    assert_eq!(text, "there are no backups\n");
}

#[tokio::test]
async fn a_backup_is_made_listed_shown_and_verified() {
    let (_server, cli) = filled().await;
    cli.run(&["init"]).await.exits(0);
    let manifest = cli.run(&["backup", "redis-main", "--json"]).await.exits(0).json();
    assert_eq!((&manifest["status"], &manifest["contents"]["items"]), (&"complete".into(), &1000.into()));

    let alone = ["--vault", "vault", "--json"];
    let list = cli.run(&[&["backups"], &alone[..]].concat()).await.exits(0).json();
    let backup = list["backups"][0]["backup"].as_str().expect("a name").to_owned();
    assert_eq!(backup, format!("redis-main/{}", manifest["id"].as_str().expect("an id")));
    assert_eq!((&list["backups"][0]["good"], &list["backups"][0]["items"]), (&true.into(), &1000.into()));

    let shown = cli.run(&[&["show", "redis-main/latest"], &alone[..]].concat()).await.exits(0).json();
    assert_eq!((&shown["manifest"], &shown["backup"]["backup"]), (&manifest, &backup.as_str().into()));

    let verified = cli.run(&["verify", &backup, "--vault", "vault"]).await.exits(0).stdout;
    assert!(verified.starts_with(&format!("{backup} is whole: ")), "{verified}");
    let table = cli.run(&["backups", "redis-main", "--vault", "vault"]).await.exits(0).stdout;
    let row = table.lines().nth(1).expect("a row");
    for word in [backup.as_str(), "complete", "1,000", "verified"] {
        assert!(row.contains(word), "{word} is not in {row}");
    }
}

#[tokio::test]
async fn what_is_extracted_starts_a_stock_server() {
    let (server, cli) = filled().await;
    cli.run(&["init"]).await.exits(0);
    cli.run(&["backup", "redis-main"]).await.exits(0);
    let args = ["extract", "redis-main/latest", "--output", "out", "--vault", "vault", "--json"];
    let document = cli.run(&args).await.exits(0).json();
    let file = document["files"][0]["path"].as_str().expect("a file").to_owned();
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::copy(cli.path("out").join(&file), folder.path().join("dump.rdb")).expect("it was written");
    let copy = RedisServer::start_in(folder, &[]).await;
    assert_eq!(copy.digest().await, server.digest().await);

    let again = cli.run(&args).await.exits(3).json();
    assert_eq!(again["code"], "refused", "{again}");
    let wrong =
        cli.run(&["extract", "redis-main/latest", "--output", "x", "--format", "nonsense"]).await.exits(2);
    assert!(wrong.stderr.contains("hint: its formats: "), "{wrong:?}");
}

#[tokio::test]
async fn no_error_stands_in_the_data_on_stdout() {
    let cli = Cli::new(&[]);
    cli.run(&["init", "--vault", "vault"]).await.exits(0);
    let none = ["extract", "redis-main/latest", "--output", "-", "--vault", "vault", "--json"];
    let ran = cli.run(&none).await.exits(1);
    assert_eq!(ran.stdout, "", "whoever reads the backup there takes it for one");
    let told: serde_json::Value = serde_json::from_str(&ran.stderr).expect("the document, alone");
    assert_eq!(told["code"], "not-found", "{told}");
    let misused = cli.run(&[&none[..], &["--nonsense"]].concat()).await.exits(2);
    assert_eq!(misused.stdout, "");
    assert!(misused.stderr.contains("--nonsense"), "{misused:?}");
    // Where the files go elsewhere stdout is for documents, as everywhere.
    let elsewhere = ["extract", "redis-main/latest", "--output", "out", "--vault", "vault", "--json"];
    assert_eq!(cli.run(&elsewhere).await.exits(1).json()["code"], "not-found");
}

#[tokio::test]
async fn a_flipped_bit_is_exit_code_5_and_is_not_restored() {
    let (server, cli) = filled().await;
    cli.run(&["init"]).await.exits(0);
    let manifest = cli.run(&["backup", "redis-main", "--json"]).await.exits(0).json();
    let artifact = cli.path("vault").join(manifest["artifacts"][0]["key"].as_str().expect("a key"));
    let mut bytes = std::fs::read(&artifact).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&artifact).expect("removable");
    std::fs::write(&artifact, bytes).expect("writable");

    let document = cli.run(&["verify", "redis-main/latest", "--json"]).await.exits(5).json();
    assert_eq!(document["code"], "damaged", "{document}");
    let before = server.digest().await;
    let backup = format!("redis-main/{}", manifest["id"].as_str().expect("an id"));
    cli.run(&["restore", &backup, "--confirm", "0"]).await.exits(5);
    assert_eq!(server.digest().await, before);
    let list = cli.run(&["backups", "--json"]).await.exits(0).json();
    assert_eq!(
        (&list["backups"][0]["status"], &list["backups"][0]["good"]),
        (&"damaged".into(), &false.into())
    );
    cli.run(&["scrub", "--deep"]).await.exits(5);
    let quick = cli.run(&["scrub"]).await.exits(5).stdout;
    assert!(quick.contains("found damaged") && quick.contains(&backup), "{quick}");
}

#[tokio::test]
async fn a_vault_alone_names_what_a_restore_needs() {
    let (_server, cli) = filled().await;
    cli.run(&["init"]).await.exits(0);
    cli.run(&["backup", "redis-main"]).await.exits(0);
    let ran = cli.run(&["restore", "redis-main/latest", "--to", "new", "--vault", "vault"]).await.exits(1);
    for words in ["hint: with --vault alone there are no targets", "under `targets`", "`tidekeeper extract`"]
    {
        assert!(ran.stderr.contains(words), "{words:?} is not in {ran:?}");
    }
}

#[tokio::test]
async fn unknown_backups_and_sources_get_the_nearest() {
    let (_server, cli) = filled().await;
    cli.run(&["init"]).await.exits(0);
    cli.run(&["backup", "redis-main"]).await.exits(0);
    for (args, hint) in [
        (["backup", "redis-mian"], "redis-main"),
        (["show", "redis-mian/latest"], "redis-main"),
        (["verify", "redis-main/20260101T000000Z-000000"], "the nearest is redis-main/"),
    ] {
        let ran = cli.run(&args).await.exits(1);
        let hints = ran.stderr.lines().find(|line| line.starts_with("hint: ")).unwrap_or_default();
        assert!(hints.contains(hint), "{args:?}: {ran:?}");
    }
    cli.run(&["show", "redis-main"]).await.exits(2);
}

#[tokio::test]
async fn a_server_that_is_down_is_named() {
    let cli = Cli::of_redis("redis://127.0.0.1:1");
    cli.run(&["init"]).await.exits(0);
    let checked = cli.run(&["check", "--json"]).await.exits(1).json();
    assert_eq!(checked["sources"][0]["error"]["code"], "unreachable", "{checked}");
    let args = ["backup", "redis-main", "--deadline", "2s", "--json"];
    let document = cli.run(&args).await.exits(1).json();
    assert!(document["message"].as_str().is_some_and(|text| text.contains("127.0.0.1:1")), "{document}");
    let runs = cli.run(&["runs", "--json"]).await.exits(0).json();
    assert_eq!((&runs["runs"][0]["state"], &runs["runs"][0]["action"]), (&"failed".into(), &"backup".into()));
}

#[tokio::test]
async fn an_encrypted_backup_needs_a_private_key_and_nothing_else() {
    let (_server, cli) = filled().await;
    let keys = [age::x25519::Identity::generate(), age::x25519::Identity::generate()];
    let recipients = keys.iter().map(|key| key.to_public().to_string()).collect::<Vec<_>>().join(", ");
    let main = std::fs::read_to_string(cli.path("tidekeeper.yaml")).expect("it is there");
    let encryption = format!("encryption: {{ recipients: [{recipients}], identity_file: first }}\n");
    cli.write("tidekeeper.yaml", &(main + &encryption));
    for (key, name) in keys.iter().zip(["first", "second"]) {
        cli.write(name, age::secrecy::ExposeSecret::expose_secret(&key.to_string()));
    }
    cli.run(&["init"]).await.exits(0);
    cli.run(&["backup", "redis-main"]).await.exits(0);
    let alone = ["extract", "redis-main/latest", "--vault", "vault", "--output", "out"];
    let ran = cli.run(&alone).await;
    assert!(ran.code == 2 && ran.stderr.contains("hint: "), "{ran:?}");
    std::fs::remove_dir_all(cli.path("out")).ok();
    cli.run(&[&alone[..], &["--identity", "second"]].concat()).await.exits(0);
}
