//! What `tidekeeper timeline` draws, from the vault alone.

use crate::app::seed;
use crate::harness::cli::Cli;

#[tokio::test]
async fn windows_and_gaps_are_drawn_from_the_vault_alone() {
    let cli = Cli::new(&[]);
    cli.run(&["init", "--vault", "vault"]).await.exits(0);
    let none = cli.run(&["timeline", "mongo-main", "--vault", "vault"]).await.exits(1);
    assert!(none.stderr.contains("mongo-main has no backup in this vault"), "{none:?}");

    let nobody = ["timeline", "mongo-mian", "--vault", "vault"];
    seed::timelines(&cli.path("vault"), &"mongo-main".parse().expect("a name")).await;
    let text = cli.run(&["timeline", "mongo-main", "--vault", "vault"]).await.exits(0).stdout;
    let mistyped = cli.run(&nobody).await.exits(1);
    assert!(mistyped.stderr.contains("did you mean mongo-main?"), "{mistyped:?}");
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some(
            "mongo-main can be restored to any second from 2026-11-21T07:05:00Z to 2026-11-21T07:30:00Z, \
             and from 2026-11-21T06:00:00Z to 2026-11-21T06:10:00Z"
        )
    );
    assert!(lines.next().is_some_and(|line| line.starts_with("2 segments, ")), "{text}");
    let bar = text.lines().find(|line| line.starts_with('[')).expect("a drawing");
    let marks: Vec<char> = bar.chars().filter(|mark| "#-.".contains(*mark)).collect();
    let mut order = marks.clone();
    order.dedup();
    assert_eq!(order, ['#', '.', '-', '#'], "{bar}");
    let row = |what: &str| text.lines().find(|line| line.contains(what)).unwrap_or_default().to_owned();
    assert!(row("gap ").contains("the log has rolled over"), "{text}");
    assert!(row("  gap").starts_with("2026-11-21T06:10:00Z  2026-11-21T07:00:00Z"), "{text}");
    assert!(row("base mongo-main/20261121T070500Z").contains("25 min 00 s"), "{text}");

    let json = cli.run(&["timeline", "mongo-main", "--vault", "vault", "--json"]).await.exits(0).json();
    assert_eq!((json["windows"].as_array().map(Vec::len), &json["segments"]), (Some(2), &2.into()));
    assert_eq!(json["gaps"][0]["why"], "the log has rolled over");
}

#[tokio::test]
async fn a_source_without_a_timeline_is_told_why_it_has_none() {
    let cli = Cli::new(&[]);
    cli.run(&["init", "--vault", "vault"]).await.exits(0);
    let kinds =
        [("alone", "mongodb", "no place in a log"), ("cache", "redis", "the moments of its backups only")];
    for (source, kind, why) in kinds {
        seed::backup(&cli.path("vault"), &source.parse().expect("a name"), kind).await;
        for args in [&["timeline", source][..], &["restore", source, "--at", "2026-11-21T05:00:00Z"]] {
            let none = cli.run(&[args, &["--vault", "vault"]].concat()).await.exits(1);
            assert!(none.stderr.contains(&format!("{source} has no timeline")), "{none:?}");
            assert!(none.stderr.contains(why), "{why}: {none:?}");
        }
    }
}
