//! Where backups live. Every durable fact is an object here; nothing here knows what a Redis is.

use std::sync::Arc;

use self::store::SharedStore;
use crate::clock::SharedClock;
use crate::config::Encryption;

pub mod abandon;
pub mod accept;
pub mod catalog;
pub mod codec;
pub mod decide;
pub mod deletion;
pub mod details;
pub mod fate;
pub mod hold;
pub mod layout;
pub mod manifest;
pub mod marks;
pub mod place;
pub mod probe;
pub mod reader;
pub mod retention;
pub mod scrub;
pub mod store;
pub mod store_clock;
pub mod suspect;
pub mod timeline;
pub mod verify;
pub mod writer;

/// An opened vault. Clones are the same vault.
#[derive(Clone, Debug)]
pub struct Vault {
    /// Its objects.
    pub store: SharedStore,
    /// This process's clock.
    pub clock: SharedClock,
    /// To whom new artifacts are encrypted, and with what old ones are read.
    pub encryption: Option<Arc<Encryption>>,
    /// This process's nonce: part of every object that it creates to decide something.
    pub process: Arc<str>,
}

impl Vault {
    /// A vault at `store`, as `process` (a nonce) sees it. Nothing is read yet.
    pub fn new(store: SharedStore, clock: SharedClock, encryption: Option<Encryption>) -> Self {
        let process = layout::nonce().into();
        Vault { store, clock, encryption: encryption.map(Arc::new), process }
    }
}
