//! `tidekeeper restore`: a backup into a running system. A plan first; what would be lost needs a
//! confirmation.

use std::io::Write;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::context::Context;
use super::look::{Cell, Facts, Look, Table, Tone};
use super::outcome::Outcome;
use super::perform::{self, Done, RunArgs};
use super::remote::{self, Remote};
use super::{document, progress};
use crate::app::{App, RestoreWish};
use crate::config::SourceName;
use crate::error::{Context as _, Error, Kind, Result};
use crate::source::{Finding, kind_of_blockers};
use crate::vault::place::Intent;

/// Restore a backup into a running system
///
/// On a terminal the plan is shown first, and the target's name is asked for. Scripts take the field `hash`
/// of `--dry-run --json` and give it back with --confirm; a target that holds nothing needs no confirmation.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// SOURCE/ID, SOURCE/latest, or SOURCE alone
    pub what: String,

    /// With SOURCE alone: as it was at this moment, such as 2026-11-21T06:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub at: Option<Timestamp>,

    /// Into this target or source, by its name in the configuration [default: the backup's own source]
    #[arg(long, value_name = "TARGET", alias = "target")]
    pub to: Option<SourceName>,

    /// Only what matches, where the kind of source can do that
    #[arg(long, value_name = "PATTERN")]
    pub keys: Option<String>,

    /// Only this database or collection; may be given again
    #[arg(long, value_name = "NAMESPACE")]
    pub include: Vec<String>,

    /// Under another name; may be given again
    #[arg(long, value_name = "FROM=TO", value_parser = renaming)]
    pub rename: Vec<String>,

    /// Drop what is there under the same names before
    #[arg(long)]
    pub drop: bool,

    /// What else the kind of source can do; `restore --dry-run` tells when it cannot
    #[arg(long = "option", short = 'o', value_name = "NAME=VALUE", value_parser = option)]
    pub options: Vec<(String, Value)>,

    /// Show the plan and touch nothing
    #[arg(long, conflicts_with = "confirm")]
    pub dry_run: bool,

    /// The hash of the plan that was looked at
    #[arg(long, value_name = "HASH")]
    pub confirm: Option<String>,

    /// How the run is made.
    #[command(flatten)]
    pub run: RunArgs,
}

/// How long a plan may take: it reads the whole backup once.
const PLANNING: Duration = Duration::from_secs(12 * 3_600);

/// How long it may take to find the backup that is meant, and to have the log stored up to now.
const RESOLVING: Duration = Duration::from_secs(120);

fn moment(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| {
        "expected a date, a time and an offset: 2026-11-21T13:39:00Z, or 2026-11-21T14:39:00+01:00".to_owned()
    })
}

/// `FROM=TO`, as it is.
fn renaming(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok(text.to_owned()),
        _ => Err("expected FROM=TO, such as shop.users=scratch.users".to_owned()),
    }
}

/// `NAME=VALUE`; `true` and `false` are truth values, and a name alone is true.
fn option(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, "true"));
    match (name, value) {
        ("", _) => Err("expected NAME=VALUE".to_owned()),
        (_, "true" | "false") => Ok((name.to_owned(), json!(value == "true"))),
        _ => Ok((name.to_owned(), json!(value))),
    }
}

/// Plans, asks where somebody is there to be asked, restores.
pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let mut wish = wish(&args)?;
    let way = match context.remote()? {
        Some(remote) => Way::Daemon(remote),
        None => Way::Here(context.app(if args.dry_run { Intent::Read } else { Intent::Write }).await?),
    };
    if args.dry_run {
        let plan = way.plan(&wish, context).await?;
        let text = text(&plan, &context.look);
        let code = refusal(&plan).map_or(0, |error| error.kind().exit_code());
        return Ok(Outcome::done(plan, text).exit(code));
    }
    let shows_plan = wish.confirm.is_none() && context.is_interactive();
    if wish.confirm.is_none() && way.wants_a_plan(context) {
        let plan = way.plan(&wish, context).await?;
        permit(&plan, &wish, context)?;
        wish.confirm = Some(document::text(&plan, "/hash").to_owned());
    }
    let done = way.restore(&wish, &args.run, context).await?;
    if !shows_plan {
        eprint!("{}", warned(&done.detail["plan"], &context.look));
    }
    let (code, text) = (done.exit_code(), restored(&done.detail, &done.summary, &context.look));
    Ok(Outcome::done(done.detail, text).exit(code))
}

/// Who restores.
enum Way<'a> {
    Here(App),
    Daemon(Remote<'a>),
}

impl Way<'_> {
    /// The plan as the API answers it: with its hash.
    async fn plan(&self, wish: &RestoreWish, context: &Context) -> Result<Value> {
        match self {
            Way::Daemon(remote) => {
                remote.post("v1/restores", &document::of(wish)?, None, remote::PLANNING).await
            }
            Way::Here(app) => {
                let task = app.task("planning a restore", PLANNING);
                let engine = app.engine();
                let planned = app.plan_restore(wish, &engine, &task);
                let plan = progress::shown(&context.clock, &task.progress, planned).await?;
                Ok(plan.document())
            }
        }
    }

    /// A person looks at the plan. A daemon restores nothing without the hash of one; here, the run itself
    /// refuses.
    fn wants_a_plan(&self, context: &Context) -> bool {
        context.is_interactive() || matches!(self, Way::Daemon(_))
    }

    async fn restore(&self, wish: &RestoreWish, args: &RunArgs, context: &Context) -> Result<Done> {
        match self {
            Way::Daemon(remote) => remote.perform("v1/restores", &document::of(wish)?, args).await,
            Way::Here(app) => {
                let task = app.task("resolving what to restore", RESOLVING);
                let order = app.restore_order(wish, &app.engine(), &task).await?;
                perform::perform(context, app, order, args).await
            }
        }
    }
}

/// Lets a plan pass that can be executed, once somebody who looked at it agrees, or where there is nothing to
/// lose.
fn permit(plan: &Value, wish: &RestoreWish, context: &Context) -> Result<()> {
    if context.is_interactive() {
        eprint!("{}", text(plan, &context.look));
    }
    if let Some(refusal) = refusal(plan) {
        return Err(refusal.hint_first("the target was not touched"));
    }
    if context.is_interactive() {
        return confirm(target_name(wish), plan);
    }
    if document::is(plan, "/destructive") {
        let (hash, doing) = (document::text(plan, "/hash"), doing(plan));
        return Err(Error::new(Kind::Refused, doing, format!("it is not empty: {}", live(plan).join(", ")))
            .hint(format!("what is there would be lost: look at the plan with --dry-run, and confirm it with --confirm {hash}")));
    }
    Ok(())
}

fn wish(args: &Args) -> Result<RestoreWish> {
    let mut options: Map<String, Value> = args.options.iter().cloned().collect();
    if let Some(pattern) = &args.keys {
        options.insert("keys".to_owned(), json!(pattern));
    }
    for (name, list) in [("include", &args.include), ("rename", &args.rename)] {
        if !list.is_empty() {
            options.insert(name.to_owned(), json!(list));
        }
    }
    if args.drop {
        options.insert("drop".to_owned(), json!(true));
    }
    let mut wish = RestoreWish {
        at: args.at,
        target: args.to.clone(),
        options,
        confirm: args.confirm.clone(),
        ..RestoreWish::default()
    };
    if args.what.contains('/') {
        wish.backup = Some(args.what.clone());
    } else {
        wish.source = Some(args.what.parse()?);
    }
    Ok(wish)
}

/// The name that is asked for: of the target as it is configured.
fn target_name(wish: &RestoreWish) -> &str {
    let source = wish.source.as_ref().map(SourceName::as_str);
    let of_backup = || wish.backup.as_deref().and_then(|text| text.split('/').next());
    wish.target.as_ref().map(SourceName::as_str).or(source).or_else(of_backup).unwrap_or_default()
}

/// What speaks against executing a plan, if anything does.
fn refusal(plan: &Value) -> Option<Error> {
    let findings = document::items(plan, "/findings").iter();
    let findings: Vec<Finding> =
        findings.filter_map(|one| serde_json::from_value(one.clone()).ok()).collect();
    let blockers = || findings.iter().filter(|finding| finding.forbids());
    let join = |part: fn(&Finding) -> &str| blockers().map(part).collect::<Vec<_>>().join("; ");
    let error = || Error::new(kind_of_blockers(&findings), doing(plan), join(|finding| &finding.what));
    blockers().next().map(|_| error().hint(join(|finding| &finding.advice)))
}

fn doing(plan: &Value) -> String {
    format!("restoring into {}", document::text(plan, "/target/label"))
}

/// What a plan warned of that nobody was shown.
fn warned(plan: &Value, look: &Look) -> String {
    let findings = document::items(plan, "/findings").iter();
    let warnings = findings.filter(|finding| document::text(finding, "/severity") == "warning");
    match warnings.cloned().collect::<Vec<_>>().as_slice() {
        [] => String::new(),
        warnings => format!("the plan warned:\n{}", document::findings(warnings, look)),
    }
}

/// What the target holds of what is restored.
fn live(plan: &Value) -> Vec<&str> {
    document::items(plan, "/live").iter().filter_map(Value::as_str).collect()
}

/// Asks for the target's name: a `y` is typed too easily into the wrong window.
fn confirm(target: &str, plan: &Value) -> Result<()> {
    let label = document::text(plan, "/target/label");
    let destructive = document::is(plan, "/destructive");
    let what =
        if destructive { "What it holds now will be lost" } else { "Nothing that it holds will be lost" };
    eprint!("\nRestore into {label}? {what}. Type the target's name ({target}) to go on: ");
    let doing = "reading the confirmation";
    std::io::stderr().flush().doing(doing)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).doing(doing)?;
    if answer.trim() == target {
        return Ok(());
    }
    Err(Error::new(Kind::Refused, format!("restoring into {label}"), "its name was not typed")
        .hint("nothing was touched"))
}

fn text(plan: &Value, look: &Look) -> String {
    let at = |pointer| document::text(plan, pointer);
    let mut facts = Facts::default();
    facts.add("restore", document::backup(plan, "/backup"));
    facts.add("as of", at("/as_of"));
    facts.add("into", at("/target/label"));
    for (n, line) in live(plan).into_iter().enumerate() {
        facts.add(if n == 0 { "which holds" } else { "" }, line);
    }
    facts.add("hash", at("/hash"));
    let mut shown = facts.show(look);
    let mut actions = Table::new(["ACTION", "ON", "WHY"]);
    for action in document::items(plan, "/actions") {
        actions.row([
            Cell::text(document::text(action, "/verb")).tone(Tone::Strong),
            Cell::text(document::text(action, "/object")),
            Cell::text(document::text(action, "/reason")),
        ]);
    }
    if !document::items(plan, "/actions").is_empty() {
        shown.push_str(&format!("\n{}", actions.show(look)));
    }
    let findings = document::findings(document::items(plan, "/findings"), look);
    if !findings.is_empty() {
        shown.push_str(&format!("\n{findings}"));
    }
    if document::is(plan, "/destructive") && refusal(plan).is_none() {
        let hash = at("/hash");
        let warning =
            format!("what it holds of that now will be lost; a script confirms that with --confirm {hash}");
        shown.push_str(&format!("\n{}\n", look.paint(Tone::Warning, &warning)));
    }
    shown
}

fn restored(detail: &Value, summary: &str, look: &Look) -> String {
    let mut shown = format!("{summary}\n");
    let failed = |check: &&Value| !document::is(check, "/passed");
    for check in document::items(detail, "/checks").iter().filter(failed) {
        let at = |pointer| document::text(check, pointer);
        let name = look.paint(Tone::Bad, at("/name"));
        shown.push_str(&format!("  {name}: expected {}, found {}\n", at("/expected"), at("/found")));
    }
    for omission in document::items(detail, "/restored/omissions") {
        let (what, why) = (document::text(omission, "/what"), document::text(omission, "/why"));
        shown.push_str(&format!("  did not come back: {what}: {why}\n"));
    }
    shown
}
