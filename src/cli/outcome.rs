//! How a command ends: a document or a text on stdout, a complaint on stderr, and an exit code.

use std::io::Write;

use serde_json::{Value, json};

use super::look::{Look, Tone};
use crate::error::{Error, Kind, Result};

/// Exit code: what was asked for is done, but the backup is `partial` or `suspect`.
pub const LESS_THAN_ASKED: u8 = 4;

/// Exit code: damage was found.
pub const DAMAGE: u8 = 5;

/// What a command that did its work has to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// For machines: the API's document of the same.
    pub document: Value,
    /// For people; ends its last line, or is empty.
    pub text: String,
    /// 0, 1 (something that was looked at does not work), 4 or 5.
    pub exit: u8,
}

impl Outcome {
    /// Done.
    pub fn done(document: Value, text: impl Into<String>) -> Self {
        Outcome { document, text: text.into(), exit: 0 }
    }

    /// With another exit code.
    pub fn exit(mut self, code: u8) -> Self {
        self.exit = code;
        self
    }

    /// Text that is the result itself in either form: a script of completions, a schema.
    pub fn verbatim(text: String) -> Self {
        Outcome { document: Value::Null, text, exit: 0 }
    }
}

/// Prints how a command ended and tells its exit code. Where stdout is data, the document of an error goes to stderr, alone.
pub fn print(ended: &Result<Outcome>, json: bool, stdout_is_data: bool, look: &Look) -> u8 {
    match ended {
        Ok(outcome) if json && !outcome.document.is_null() => print_document(&outcome.document),
        Ok(outcome) => print_bytes(outcome.text.as_bytes()),
        Err(error) if json && stdout_is_data => eprintln!("{:#}", error_document(error)),
        Err(error) => {
            eprint!("{}", complaint(error, look));
            if json {
                print_document(&error_document(error));
            }
        }
    }
    match ended {
        Ok(outcome) => outcome.exit,
        Err(error) => error.kind().exit_code(),
    }
}

/// `error: doing: why`, and the hint below.
pub fn complaint(error: &Error, look: &Look) -> String {
    told(Tone::Bad, "error:", error, look)
}

/// The same of an error that did not stop the command.
pub fn warning(error: &Error, look: &Look) -> String {
    told(Tone::Warning, "warning:", error, look)
}

fn told(tone: Tone, word: &str, error: &Error, look: &Look) -> String {
    let mut text = format!("{} {error}\n", look.paint(tone, word));
    if let Some(hint) = error.hint_text() {
        text.push_str(&format!("{} {hint}\n", look.paint(Tone::Strong, "hint:")));
    }
    text
}

/// The one document of a command that failed.
pub fn error_document(error: &Error) -> Value {
    json!({
        "code": error.kind().code(),
        "message": error.to_string(),
        "hint": error.hint_text(),
        "retryable": error.is_retryable(),
    })
}

/// The error that an [`error_document`], an API's problem or the end of a run tells of.
pub fn error_of(document: &Value, doing: &str) -> Error {
    let of = |key: &str| document.get(key).and_then(Value::as_str);
    let kind = of("code").and_then(Kind::from_code).unwrap_or(Kind::Internal);
    let why = of("message").or(of("detail")).or(of("title")).unwrap_or("no reason was given");
    let error = Error::new(kind, doing, why);
    match of("hint") {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn print_document(document: &Value) {
    let mut text = serde_json::to_vec_pretty(document).unwrap_or_default();
    text.push(b'\n');
    print_bytes(&text);
}

/// A reader that went away (`| head`) is no failure of ours.
fn print_bytes(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
}
