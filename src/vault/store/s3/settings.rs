//! What the bucket's own settings would do to a vault, for `tidekeeper check`.

use aws_sdk_s3::types::{
    BucketVersioningStatus, ExpirationStatus, LifecycleRule, LifecycleRuleFilter, TransitionStorageClass,
};

use super::S3Store;
use super::errors::{self, Effect, failed};
use crate::error::{Error, Kind, Result};
use crate::finding::Finding;

/// Asks for versioning and lifecycle rules and says what they mean for this vault.
pub(super) async fn inspect(store: &S3Store) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let versioned = versioned(store).await.unwrap_or_else(|error| {
        findings.push(unknown("whether the bucket keeps versions", "s3:GetBucketVersioning", &error));
        None
    });
    match rules(store).await {
        Ok(rules) => findings.extend(judge(versioned, &rules, &store.0.place.name(""))),
        Err(error) => {
            findings.push(unknown("the bucket's lifecycle rules", "s3:GetLifecycleConfiguration", &error));
        }
    }
    Ok(findings)
}

/// Whether deleted objects stay as old versions; `None` if the server does not know versions.
async fn versioned(store: &S3Store) -> Result<Option<bool>> {
    let doing = "reading the bucket's versioning";
    let asked = store
        .repeat(doing, 0, || async {
            let get = store.0.client.get_bucket_versioning().bucket(&store.0.place.bucket);
            get.send().await.map_err(|error| failed(doing, error, Effect::None))
        })
        .await?;
    Ok(Some(matches!(
        asked.status(),
        Some(BucketVersioningStatus::Enabled | BucketVersioningStatus::Suspended)
    )))
}

async fn rules(store: &S3Store) -> Result<Vec<LifecycleRule>> {
    let doing = "reading the bucket's lifecycle rules";
    store
        .repeat(doing, 0, || async {
            let get = store.0.client.get_bucket_lifecycle_configuration().bucket(&store.0.place.bucket);
            match get.send().await {
                Ok(configuration) => Ok(configuration.rules.unwrap_or_default()),
                Err(error) if errors::code(&error) == Some("NoSuchLifecycleConfiguration") => Ok(Vec::new()),
                Err(error) => Err(failed(doing, error, Effect::None)),
            }
        })
        .await
}

fn unknown(what: &str, right: &str, error: &Error) -> Finding {
    let advice = match error.kind() {
        Kind::Denied => format!("grant {right}, so that `check` can see what removes or archives backups"),
        Kind::Unsupported => {
            "this store has no such setting; see its manual for what removes objects".to_owned()
        }
        _ => "try again".to_owned(),
    };
    Finding::warning(format!("unknown: {what} ({})", error.why()), advice)
}

/// What the rules do to objects whose names begin with `prefix`.
fn judge(versioned: Option<bool>, rules: &[LifecycleRule], prefix: &str) -> Vec<Finding> {
    let touching: Vec<&LifecycleRule> = rules.iter().filter(|rule| touches(rule, prefix)).collect();
    let covers = |wanted: fn(&LifecycleRule) -> bool| {
        touching.iter().any(|rule| prefix.starts_with(prefix_of(rule)) && wanted(rule))
    };
    let mut findings: Vec<Finding> = touching.iter().filter_map(|rule| harm(rule)).collect();
    if versioned == Some(true) && !covers(|rule| rule.noncurrent_version_expiration.is_some()) {
        findings.push(Finding::warning(
            "the bucket keeps versions, and no lifecycle rule expires noncurrent ones",
            "deleted backups stay and cost: add a rule with NoncurrentVersionExpiration",
        ));
    }
    if !covers(|rule| rule.abort_incomplete_multipart_upload.is_some()) {
        findings.push(Finding::warning(
            "no lifecycle rule ends abandoned multipart uploads",
            "`tidekeeper scrub --repair` ends them; a rule with AbortIncompleteMultipartUpload (7 days) does so too",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("the bucket's versioning and lifecycle rules suit a vault"));
    }
    findings
}

/// Whether an enabled rule can apply to our objects, which have no tags.
fn touches(rule: &LifecycleRule, prefix: &str) -> bool {
    let of = prefix_of(rule);
    let overlaps = of.starts_with(prefix) || prefix.starts_with(of);
    rule.status == ExpirationStatus::Enabled && overlaps && !rule.filter.as_ref().is_some_and(wants_tags)
}

#[allow(deprecated)] // Old rules have their prefix outside of the filter, and still work.
fn prefix_of(rule: &LifecycleRule) -> &str {
    let filter = rule.filter.as_ref();
    let in_filter = filter.and_then(LifecycleRuleFilter::prefix);
    let in_and = filter.and_then(LifecycleRuleFilter::and).and_then(|and| and.prefix());
    in_filter.or(in_and).or(rule.prefix()).unwrap_or("")
}

fn wants_tags(filter: &LifecycleRuleFilter) -> bool {
    filter.tag().is_some() || filter.and().is_some_and(|and| !and.tags().is_empty())
}

/// What a rule does that a vault does not survive.
fn harm(rule: &LifecycleRule) -> Option<Finding> {
    let name = rule.id().unwrap_or("without a name");
    let expires = rule.expiration().is_some_and(|at| at.days().is_some() || at.date().is_some());
    if expires {
        return Some(Finding::error(
            format!("the lifecycle rule {name} expires objects of the vault"),
            "it deletes backups behind Tidekeeper's back: restrict it to another prefix; `retention` deletes what is old",
        ));
    }
    let archived = rule.transitions().iter().filter_map(|to| to.storage_class()).find(|class| {
        matches!(class, TransitionStorageClass::Glacier | TransitionStorageClass::DeepArchive)
    })?;
    Some(Finding::error(
        format!("the lifecycle rule {name} archives objects of the vault to {archived}"),
        "an archived backup cannot be restored for hours: use a class that is read at once, such as GLACIER_IR",
    ))
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{
        AbortIncompleteMultipartUpload, LifecycleExpiration, NoncurrentVersionExpiration, Tag, Transition,
    };

    use super::*;
    use crate::finding::Severity;

    fn rule(prefix: &str) -> aws_sdk_s3::types::builders::LifecycleRuleBuilder {
        let filter = LifecycleRuleFilter::builder().prefix(prefix).build();
        LifecycleRule::builder().id("r").status(ExpirationStatus::Enabled).filter(filter)
    }

    fn expiring(prefix: &str) -> LifecycleRule {
        rule(prefix).expiration(LifecycleExpiration::builder().days(30).build()).build().unwrap()
    }

    fn tidy() -> LifecycleRule {
        rule("")
            .abort_incomplete_multipart_upload(AbortIncompleteMultipartUpload::builder().build())
            .noncurrent_version_expiration(NoncurrentVersionExpiration::builder().noncurrent_days(7).build())
            .build()
            .unwrap()
    }

    fn worst(versioned: bool, rules: &[LifecycleRule]) -> Severity {
        let findings = judge(Some(versioned), rules, "team/vault/");
        findings.iter().map(|finding| finding.severity).max().unwrap()
    }

    #[test]
    fn a_bucket_that_tidies_up_is_fine() {
        assert_eq!(worst(true, &[tidy()]), Severity::Ok);
        assert_eq!(worst(false, &[tidy()]), Severity::Ok);
    }

    #[test]
    fn versions_and_uploads_that_nobody_expires_are_a_warning() {
        assert_eq!(worst(true, &[]), Severity::Warning);
        let only_uploads = rule("team/")
            .abort_incomplete_multipart_upload(AbortIncompleteMultipartUpload::builder().build())
            .build()
            .unwrap();
        assert_eq!(worst(true, std::slice::from_ref(&only_uploads)), Severity::Warning);
        assert_eq!(worst(false, &[only_uploads]), Severity::Ok);
    }

    #[test]
    fn a_rule_that_expires_the_vault_is_refused_and_one_beside_it_is_not() {
        assert_eq!(worst(false, &[tidy(), expiring("")]), Severity::Error);
        assert_eq!(worst(false, &[tidy(), expiring("team/")]), Severity::Error);
        assert_eq!(worst(false, &[tidy(), expiring("team/vault/data/")]), Severity::Error);
        assert_eq!(worst(false, &[tidy(), expiring("team/other/")]), Severity::Ok);
        let mut disabled = expiring("");
        disabled.status = ExpirationStatus::Disabled;
        assert_eq!(worst(false, &[tidy(), disabled]), Severity::Ok);
    }

    #[test]
    fn a_rule_for_tagged_objects_does_not_touch_ours() {
        let tag = Tag::builder().key("temporary").value("yes").build().unwrap();
        let mut tagged = expiring("");
        tagged.filter = Some(LifecycleRuleFilter::builder().tag(tag).build());
        assert_eq!(worst(false, &[tidy(), tagged]), Severity::Ok);
    }

    #[test]
    fn archives_that_cannot_be_read_at_once_are_refused() {
        let to = |class| {
            let transition = Transition::builder().days(1).storage_class(class).build();
            rule("").transitions(transition).build().unwrap()
        };
        assert_eq!(worst(false, &[tidy(), to(TransitionStorageClass::DeepArchive)]), Severity::Error);
        assert_eq!(worst(false, &[tidy(), to(TransitionStorageClass::GlacierIr)]), Severity::Ok);
    }
}
