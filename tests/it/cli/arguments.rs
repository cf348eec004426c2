//! Arguments, configuration and exit codes, without any system to talk to.

use crate::harness::cli::{Cli, finish};

const COMMANDS: [&str; 19] = [
    "init",
    "check",
    "permissions",
    "serve",
    "status",
    "backup",
    "backups",
    "show",
    "verify",
    "extract",
    "restore",
    "hold",
    "unhold",
    "accept",
    "retention",
    "scrub",
    "runs",
    "config",
    "completions",
];

#[tokio::test]
async fn help_names_every_command_and_every_exit_code() {
    let cli = Cli::new(&[]);
    let help = cli.run(&["--help"]).await.exits(0).stdout;
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in\n{help}");
    }
    assert!(help.contains("Exit codes: 0 done"), "{help}");
    assert!(cli.run(&["--version"]).await.exits(0).stdout.starts_with("tidekeeper 0."));
}

#[tokio::test]
async fn wrong_usage_exits_2_and_machines_get_a_document() {
    let cli = Cli::new(&[]);
    let ran = cli.run(&["bakcup", "redis-main"]).await.exits(2);
    assert!(ran.stdout.is_empty() && ran.stderr.contains("backup"), "{ran:?}");
    let document = cli.run(&["--json", "show"]).await.exits(2).json();
    assert_eq!((&document["code"], &document["retryable"]), (&"usage".into(), &false.into()), "{document}");
    let both = cli.run(&["--config", "a", "--vault", "b", "status"]).await.exits(2);
    assert!(both.stderr.contains("cannot be used with"), "{both:?}");
}

#[tokio::test]
async fn without_a_configuration_it_says_how_to_name_one() {
    let ran = Cli::new(&[]).run(&["status"]).await.exits(2);
    assert!(
        ran.stderr.starts_with("error: looking for the configuration: there is no tidekeeper.yaml here\n")
    );
    assert!(ran.stderr.contains("\nhint: name one with --config FILE"), "{ran:?}");
}

#[tokio::test]
async fn a_wrong_configuration_exits_2_with_every_problem() {
    let text = "vault: { fs: { pth: v } }\n\
                sources:\n  - name: redis-main\n    redis: { ulr: u, password: hunter2 }\n";
    let cli = Cli::new(&[("tidekeeper.yaml", text)]);
    let ran = cli.run(&["status"]).await.exits(2);
    for line in [
        "tidekeeper.yaml:1:16: vault.fs.pth: unknown key",
        "tidekeeper.yaml:4:14: sources[0].redis.ulr: unknown key",
    ] {
        assert!(ran.stderr.contains(line), "{line} is not in\n{}", ran.stderr);
    }
    let document = cli.run(&["status", "--json"]).await.exits(2).json();
    assert_eq!(document["code"], "config");
    assert!(!format!("{ran:?}{document}").contains("hunter2"));
}

#[tokio::test]
async fn the_command_line_wins_over_the_environment() {
    let cli = Cli::new(&[("a.yaml", "vault: { fs: { path: a } }"), ("b.yaml", "vault: { fs: { path: b } }")]);
    let run = async |args: &[&str], environment: &[(&str, &str)]| {
        let mut command = cli.command(args);
        command.envs(environment.iter().copied());
        finish(command, args).await
    };
    let by_variable = run(&["permissions"], &[("TIDEKEEPER_CONFIG", "a.yaml")]).await.exits(0);
    assert!(by_variable.stdout.contains("vault a"), "{by_variable:?}");
    let by_flag =
        run(&["permissions", "--config", "b.yaml"], &[("TIDEKEEPER_CONFIG", "a.yaml")]).await.exits(0);
    assert!(by_flag.stdout.contains("vault b"), "{by_flag:?}");
    let by_place = run(&["permissions", "--vault", "c"], &[("TIDEKEEPER_CONFIG", "a.yaml")]).await.exits(0);
    assert!(by_place.stdout.contains("vault c"), "{by_place:?}");
    let both = [("TIDEKEEPER_CONFIG", "a.yaml"), ("TIDEKEEPER_VAULT", "c")];
    let ran = run(&["permissions"], &both).await.exits(2);
    assert!(ran.stderr.contains("are both set"), "{ran:?}");
}

#[tokio::test]
async fn permissions_of_a_bucket_are_a_policy() {
    let text = "vault: { s3: { bucket: b, prefix: p, kms_key: arn:k,\n\
                \x20 object_lock: { mode: governance, keep: 1d } } }\n\
                targets:\n\
                \x20 - { name: scratch-m, mongodb: { uri: \"mongodb://h\" } }\n\
                \x20 - { name: scratch-r, redis: { url: \"redis://h\" } }\n";
    let cli = Cli::new(&[("tidekeeper.yaml", text)]);
    let document = cli.run(&["permissions", "--json"]).await.exits(0).json();
    let titles: Vec<_> =
        document["permissions"].as_array().expect("a list").iter().map(|one| &one["title"]).collect();
    assert_eq!(titles.len(), 3, "targets are never backed up: {titles:?}");
    assert!(titles[1..].iter().all(|title| title.to_string().contains("restored into")), "{titles:?}");
    let policy: serde_json::Value =
        serde_json::from_str(document["permissions"][0]["text"].as_str().expect("text")).expect("a policy");
    assert_eq!(policy["Statement"][0]["Resource"], "arn:aws:s3:::b/p/*");
    let actions = policy["Statement"][0]["Action"].as_array().expect("a list");
    assert!(actions.contains(&"s3:PutObjectRetention".into()), "{policy}");
    assert_eq!(policy["Statement"][2]["Resource"], "arn:k");
    let text = policy.to_string();
    assert!(
        !text.contains("ListMultipartUploadParts") && !text.contains("GetBucketObjectLock"),
        "never asked"
    );
}

#[tokio::test]
async fn the_schema_holds_the_parts_of_all_kinds() {
    let cli = Cli::new(&[]);
    let schema = cli.run(&["config", "schema"]).await.exits(0).json();
    assert_eq!(schema["title"], "tidekeeper.yaml");
    assert!(schema["$defs"]["Entry"]["properties"]["redis"].is_object());
    let schema = cli.run(&["config", "schema", "schedule", "--json"]).await.exits(0).json();
    assert!(schema["properties"]["retention"].is_object());
}

#[tokio::test]
async fn completions_are_scripts() {
    let cli = Cli::new(&[]);
    for shell in ["bash", "zsh", "fish"] {
        let script = cli.run(&["completions", shell, "--json"]).await.exits(0).stdout;
        assert!(script.contains("retention"), "{shell}: {script}");
    }
}

#[tokio::test]
async fn a_place_without_a_vault_is_refused_by_name() {
    let cli = Cli::new(&[]);
    std::fs::create_dir(cli.path("empty")).expect("writable");
    for args in [["backups", "--vault", "empty"], ["backups", "--vault", "nowhere"]] {
        let ran = cli.run(&args).await.exits(1);
        assert!(ran.stderr.contains(args[2]) && ran.stderr.contains("hint: "), "{ran:?}");
    }
    let ran = cli.run(&["backups", "--vault", "gs://b"]).await.exits(2);
    assert!(ran.stderr.contains("gs://"), "{ran:?}");
}

#[tokio::test]
async fn a_bucket_without_a_region_says_where_one_is_named() {
    let cli = Cli::new(&[]);
    let args = ["backups", "--vault", "s3://b/p"];
    let mut command = cli.command(&args);
    command.envs([("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")]);
    command.envs([("AWS_EC2_METADATA_DISABLED", "true"), ("HOME", "/nonexistent")]);
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"] {
        command.env_remove(name);
    }
    let ran = finish(command, &args).await.exits(2);
    assert!(ran.stderr.contains("hint: set AWS_REGION") && ran.stderr.contains("?region=REGION"), "{ran:?}");
}
