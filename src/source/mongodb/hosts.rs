//! Why none of a deployment's hosts will do: what the driver heard of each last, in one line.
//!
//! The driver's own words for it are a dump of its state. Beside them it tells every answer to its heartbeats as it came.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mongodb::bson::Document;
use mongodb::error::{Error as DriverError, ErrorKind};
use mongodb::event::EventHandler;
use mongodb::event::sdam::SdamEvent;
use mongodb::options::{ClientOptions, Tls};

use super::failure;
use crate::error::Kind;

/// What hosts answered. Clones are the same.
#[derive(Clone, Debug)]
pub struct Hosts {
    heard: Arc<Mutex<BTreeMap<String, Heard>>>,
    sought: Arc<Sought>,
}

/// What a client looks for.
#[derive(Clone, Debug, Default)]
pub struct Sought {
    /// Members of this replica set; none: whatever is there.
    pub set: Option<String>,
    /// Whether by TLS.
    pub tls: bool,
    /// For so long.
    pub within: Duration,
}

/// What was heard of a host last.
#[derive(Clone, Debug)]
pub enum Heard {
    /// Nothing yet.
    Nothing,
    /// It cannot be spoken to.
    Failure(DriverError),
    /// Its `hello`.
    Hello(Document),
}

/// That no server will do. It goes in place of the driver's error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absence {
    /// What it amounts to.
    pub kind: Kind,
    /// Each host, and what is wrong with it.
    pub why: String,
    /// What to do.
    pub hint: &'static str,
}

/// What is wrong with a host; the worst that can be said of several is the last of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// It is not of the replica set.
    Stranger,
    /// Nobody answers.
    Gone,
    /// It is up, and no primary.
    Idle,
    /// Its name has no address.
    Nameless,
    /// It speaks another protocol.
    Foreign,
    /// It hangs up at once.
    Mute,
    /// TLS does not come about.
    Tls,
    /// It does not let us in.
    Locked,
}

impl Hosts {
    /// Listens to what a client with these options will hear.
    pub fn listen(options: &mut ClientOptions, within: Duration) -> Hosts {
        let sought = Sought {
            set: options.repl_set_name.clone(),
            tls: matches!(options.tls, Some(Tls::Enabled(_))),
            within: options.server_selection_timeout.unwrap_or(within),
        };
        let unheard = options.hosts.iter().map(|host| (host.to_string(), Heard::Nothing)).collect();
        let hosts = Hosts { heard: Arc::new(Mutex::new(unheard)), sought: Arc::new(sought) };
        let listener = hosts.clone();
        options.sdam_event_handler = Some(EventHandler::callback(move |event| listener.hear(event)));
        hosts
    }

    fn hear(&self, event: SdamEvent) {
        let (address, heard) = match event {
            SdamEvent::ServerHeartbeatSucceeded(event) => (event.server_address, Heard::Hello(event.reply)),
            SdamEvent::ServerHeartbeatFailed(event) => (event.server_address, Heard::Failure(event.failure)),
            _ => return,
        };
        self.heard.lock().expect("no holder panics").insert(address.to_string(), heard);
    }

    /// What is wrong with each of them, for who waits.
    pub fn why(&self) -> String {
        let heard = self.heard.lock().expect("no holder panics");
        let hosts: Vec<String> =
            heard.iter().map(|(host, heard)| judge(&self.sought, host, heard).1).collect();
        hosts.join(", ")
    }

    /// The same; none while one of them serves.
    pub fn away(&self) -> Option<String> {
        let serves = |heard: &Heard| matches!(heard, Heard::Hello(hello) if is_serving(hello));
        let is_served = self.heard.lock().expect("no holder panics").values().any(serves);
        (!is_served).then(|| self.why())
    }

    /// Puts in place of the driver's word that no server will do, what is wrong with each. Other errors stay as they are.
    pub fn explain(&self, error: DriverError) -> DriverError {
        match &*error.kind {
            ErrorKind::ServerSelection { message, .. } if message.contains("Topology: {") => {
                let heard = self.heard.lock().expect("no holder panics");
                DriverError::custom(absence(&self.sought, &heard))
            }
            _ => error,
        }
    }
}

/// What is to be said when none of these will do.
pub fn absence(sought: &Sought, heard: &BTreeMap<String, Heard>) -> Absence {
    let found: Vec<(Fault, String)> = heard.iter().map(|(host, heard)| judge(sought, host, heard)).collect();
    let worst = found.iter().map(|(fault, _)| *fault).max().unwrap_or(Fault::Gone);
    let hosts: Vec<&str> = found.iter().map(|(_, words)| words.as_str()).collect();
    let looked_for = match (worst, &sought.set) {
        (Fault::Stranger, Some(set)) => format!("no member of the replica set {set}"),
        _ if found.iter().any(|(fault, _)| *fault == Fault::Idle) => "no primary".to_owned(),
        _ => "no server".to_owned(),
    };
    let why = format!("{looked_for} within {:?}: {}", sought.within, hosts.join(", "));
    let (kind, hint) = advice(worst, sought.tls);
    Absence { kind, why, hint }
}

fn advice(fault: Fault, tls: bool) -> (Kind, &'static str) {
    match fault {
        Fault::Stranger => (
            Kind::Config,
            "write the replica set's own name into `replicaSet=` of the `uri`, or look whether the hosts are the right ones",
        ),
        Fault::Idle => (
            Kind::Unready,
            "an election takes seconds; if it lasts, more than half of the members must be up: `rs.status()` in mongosh tells",
        ),
        Fault::Gone => (
            Kind::Unreachable,
            "look whether it is up, at the host and port in the `uri`, and at the network between",
        ),
        Fault::Nameless => {
            (Kind::Unreachable, "look at the spelling of the hosts in the `uri`, and at the name server")
        }
        Fault::Foreign => (Kind::Unreachable, "look at the port in the `uri`: something else listens there"),
        Fault::Mute if tls => {
            (Kind::Unreachable, "if the server does not speak TLS, take `tls=true` out of the `uri`")
        }
        Fault::Mute => {
            (Kind::Unreachable, "if the server wants TLS, add `tls=true` (and `tlsCAFile=`) to the `uri`")
        }
        Fault::Tls => (
            Kind::Unreachable,
            "look at `tls=`, `tlsCAFile=` and the host's name in the `uri`, and at the server's certificate",
        ),
        Fault::Locked => (Kind::Denied, failure::LOGIN),
    }
}

fn judge(sought: &Sought, host: &str, heard: &Heard) -> (Fault, String) {
    let (fault, words) = match heard {
        Heard::Nothing => (Fault::Gone, "does not answer".to_owned()),
        Heard::Failure(error) => of_error(error),
        Heard::Hello(hello) => of_hello(sought, hello),
    };
    (fault, format!("{host} {words}"))
}

fn says(hello: &Document, name: &str) -> bool {
    hello.get_bool(name).unwrap_or(false)
}

/// Whether it is one that all commands may be sent to.
fn is_serving(hello: &Document) -> bool {
    says(hello, "isWritablePrimary") || says(hello, "ismaster")
}

fn of_hello(sought: &Sought, hello: &Document) -> (Fault, String) {
    let set = hello.get_str("setName").ok();
    match (&sought.set, set) {
        (Some(wanted), Some(set)) if wanted != set => {
            return (Fault::Stranger, format!("is of the replica set {set}"));
        }
        (Some(_), None) if !says(hello, "isreplicaset") => {
            return (Fault::Stranger, "is of no replica set".to_owned());
        }
        _ => {}
    }
    let role = match () {
        () if is_serving(hello) => "answers by now",
        () if says(hello, "secondary") => "is a secondary",
        () if says(hello, "arbiterOnly") => "is an arbiter",
        () => "is starting or recovering",
    };
    (Fault::Idle, role.to_owned())
}

fn of_error(error: &DriverError) -> (Fault, String) {
    match &*error.kind {
        ErrorKind::Io(error) => of_io(error),
        ErrorKind::DnsResolve { message, .. } => (Fault::Nameless, format!("has no address ({message})")),
        ErrorKind::Authentication { message, .. } => {
            (Fault::Locked, format!("does not let us in ({message})"))
        }
        ErrorKind::InvalidResponse { .. } | ErrorKind::Bson(_) => {
            (Fault::Foreign, "does not speak MongoDB's protocol".to_owned())
        }
        _ => (Fault::Gone, format!("fails ({})", failure::words(error))),
    }
}

fn of_io(error: &std::io::Error) -> (Fault, String) {
    use std::io::ErrorKind as Io;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(tls) = inner {
        return (Fault::Tls, format!("does not come to terms on TLS ({tls})"));
    }
    let text = error.to_string();
    match error.kind() {
        Io::ConnectionRefused => (Fault::Gone, "refuses the connection".to_owned()),
        Io::TimedOut => (Fault::Gone, "does not answer".to_owned()),
        Io::UnexpectedEof | Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe => {
            (Fault::Mute, "hangs up without an answer".to_owned())
        }
        // The standard library has no kind for it.
        _ if text.contains("lookup address") => (Fault::Nameless, format!("has no address ({text})")),
        _ => (Fault::Gone, format!("cannot be reached ({text})")),
    }
}
