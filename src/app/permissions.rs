//! The least rights that a configuration needs, in the words of whoever grants them.

use serde_json::json;

use super::{KINDS, Systems};
use crate::config::{self, Config, Place, S3Place};
use crate::error::Result;
use crate::source::{Permission, Role};

/// The rights of the vault, then those of each source and target. Reaches nothing.
pub fn permissions(config: &Config) -> Result<Vec<Permission>> {
    let systems = Systems::configure(KINDS, config).map_err(config::refuse)?;
    let mut rights = vec![of_vault(&config.vault)];
    rights.extend(systems.sources.values().flat_map(|one| one.permissions(Role::Source)));
    rights.extend(systems.targets.values().flat_map(|one| one.permissions(Role::Target)));
    Ok(rights)
}

fn of_vault(place: &Place) -> Permission {
    match place {
        Place::Fs { path, .. } => Permission {
            title: format!("directory of the vault {}", path.display()),
            text: format!("install --directory --mode=0700 --owner=tidekeeper {}", path.display()),
        },
        Place::S3(s3) => Permission {
            title: format!("IAM policy for the vault {place}"),
            text: format!("{:#}", policy(s3)),
        },
    }
}

/// Objects are only ever created and deleted; what locks and encrypts them needs rights of its own.
fn policy(place: &S3Place) -> serde_json::Value {
    let bucket = format!("arn:aws:s3:::{}", place.bucket);
    let inside = match place.prefix.as_str() {
        "" => format!("{bucket}/*"),
        prefix => format!("{bucket}/{prefix}/*"),
    };
    let mut on_objects = vec!["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"];
    if place.object_lock.is_some() {
        on_objects.push("s3:PutObjectRetention");
    }
    let of_bucket = [
        "s3:ListBucket",
        "s3:ListBucketMultipartUploads",
        "s3:GetBucketVersioning",
        "s3:GetLifecycleConfiguration",
    ];
    let mut statements = vec![
        json!({ "Effect": "Allow", "Action": on_objects, "Resource": inside }),
        json!({ "Effect": "Allow", "Action": of_bucket, "Resource": bucket }),
    ];
    if let Some(key) = &place.kms_key {
        let actions = ["kms:GenerateDataKey", "kms:Decrypt"];
        statements.push(json!({ "Effect": "Allow", "Action": actions, "Resource": key }));
    }
    json!({ "Version": "2012-10-17", "Statement": statements })
}
