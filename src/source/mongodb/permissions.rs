//! The least rights, as roles to grant.

use super::config::Settings;
use crate::source::Permission;

/// The lines for a deployment with these settings.
pub fn permissions(_settings: &Settings) -> Vec<Permission> {
    Vec::new()
}
