//! What a manifest refers to instead of holding it: what not everybody may read, and what is too long.
//!
//! Both are artifacts of the backup like any other: `details.json`, encrypted where artifacts are, and
//! `artifacts.json`, never encrypted, so that whoever may delete a backup can see all of it without a private key.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::manifest::{Artifact, Contents, MANIFEST_MAX, Manifest, Omission};

/// The name of the artifact that holds [`Details`].
pub const DETAILS: &str = "details.json";

/// The name of the artifact that holds the [`Rest`] of a manifest.
pub const REST: &str = "artifacts.json";

/// What names users' data, and digests of plain bytes, which tell whether somebody's guess of them is right.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// What the source says.
    #[serde(default)]
    pub source: Map<String, Value>,
    /// SHA-256 of the plain bytes of each artifact, where the manifest must not tell.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plain_sha256: BTreeMap<String, String>,
    /// The digest of each namespace, where the manifest must not tell.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespace_digests: BTreeMap<String, String>,
}

impl Details {
    /// Whether there is anything to store.
    pub fn is_empty(&self) -> bool {
        *self == Details::default()
    }

    /// Takes the digests of plain bytes out of what a manifest will say.
    pub fn hide(&mut self, artifacts: &mut [Artifact], contents: &mut Contents) {
        for artifact in artifacts {
            let sha256 = std::mem::take(&mut artifact.plain.sha256);
            self.plain_sha256.insert(artifact.name.clone(), sha256);
        }
        for (name, counts) in &mut contents.namespaces {
            if let Some(digest) = counts.digest.take() {
                self.namespace_digests.insert(name.clone(), digest);
            }
        }
    }

    /// Puts the digests of namespaces back.
    pub fn reveal(&self, contents: &mut Contents) {
        for (name, digest) in &self.namespace_digests {
            if let Some(counts) = contents.namespaces.get_mut(name) {
                counts.digest = Some(digest.clone());
            }
        }
    }
}

/// The parts of a manifest that can be long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rest {
    /// All artifacts but this one.
    pub artifacts: Vec<Artifact>,
    /// All counts.
    pub contents: Contents,
    /// All omissions.
    pub omissions: Vec<Omission>,
}

impl Rest {
    /// Takes the long parts out of a manifest that is too long; `None` if it is not.
    ///
    /// What stays: the number of items, and how many omissions there are. The caller adds the artifact
    /// in which the rest is stored.
    pub fn take(manifest: &mut Manifest) -> Option<Rest> {
        if serde_json::to_vec_pretty(manifest).is_ok_and(|json| json.len() < MANIFEST_MAX) {
            return None;
        }
        let short = Contents { items: manifest.contents.items, ..Contents::default() };
        let contents = std::mem::replace(&mut manifest.contents, short);
        let artifacts = std::mem::take(&mut manifest.artifacts);
        let omissions = std::mem::take(&mut manifest.omissions);
        if !omissions.is_empty() {
            let what = format!("{} parts", omissions.len());
            manifest.omissions = vec![Omission { what, why: format!("each is listed in {REST}") }];
        }
        Some(Rest { artifacts, contents, omissions })
    }

    /// The artifact in which the rest of a manifest is, if it has one.
    pub fn artifact(manifest: &Manifest) -> Option<&Artifact> {
        match &manifest.artifacts[..] {
            [only] if only.name == REST => Some(only),
            _ => None,
        }
    }

    /// Puts the long parts back.
    pub fn put_back(self, manifest: &mut Manifest) {
        manifest.artifacts = self.artifacts;
        manifest.contents = self.contents;
        manifest.omissions = self.omissions;
    }
}
