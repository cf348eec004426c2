//! How a command is refused: with the codes that real servers use.

use mongodb::bson::{Document, doc};

/// What a command comes to.
pub type Result<T> = std::result::Result<T, Refusal>;

/// A refusal, as clients read it.
#[derive(Debug)]
pub struct Refusal {
    code: i32,
    name: &'static str,
    message: String,
    /// What else the reply says.
    pub more: Box<Document>,
}

impl Refusal {
    fn new(code: i32, name: &'static str, message: impl ToString) -> Self {
        Refusal { code, name, message: message.to_string(), more: Box::default() }
    }

    /// Nothing that this server understands.
    pub fn bad(message: impl ToString) -> Self {
        Refusal::new(2, "BadValue", message)
    }

    /// Bytes that are no such document.
    pub fn malformed(cause: impl ToString) -> Self {
        Refusal::new(9, "FailedToParse", cause)
    }

    /// No such namespace.
    pub fn no_namespace(ns: &str) -> Self {
        Refusal::new(26, "NamespaceNotFound", format!("ns does not exist: {ns}"))
    }

    /// It is there already.
    pub fn exists(ns: &str) -> Self {
        Refusal::new(48, "NamespaceExists", format!("a collection '{ns}' exists already"))
    }

    /// No such cursor.
    pub fn no_cursor(id: i64) -> Self {
        Refusal::new(43, "CursorNotFound", format!("cursor id {id} not found"))
    }

    /// No such command.
    pub fn no_command(name: &str) -> Self {
        Refusal::new(59, "CommandNotFound", format!("no such command: '{name}'"))
    }

    /// A snapshot that cannot be read.
    pub fn no_snapshot() -> Self {
        Refusal::new(246, "SnapshotUnavailable", "this server was told to grant no snapshot reads")
    }

    /// A view where a collection is asked for.
    pub fn is_view(ns: &str) -> Self {
        Refusal::new(166, "CommandNotSupportedOnView", format!("{ns} is a view"))
    }

    /// An update in an applyOps whose document is not there.
    pub fn no_document(ns: &str) -> Self {
        Refusal::new(
            218,
            "UpdateOperationFailed",
            format!("failed to apply an update: no such document in {ns}"),
        )
    }

    /// The reply.
    pub fn document(&self) -> Document {
        let mut reply = doc! { "ok": 0.0, "errmsg": &self.message, "code": self.code, "codeName": self.name };
        reply.extend(*self.more.clone());
        reply
    }
}
