//! The wire double as a program, and the barest client of any server, for `benches/mongodb.py`.
//!
//! `wire serve [--port N] [--rtt 1ms] [--collection DB.NAME:BYTES:DOCSIZE[:long]].. [--small N:DOCUMENTS] [--no-apply-ops]
//! [--no-snapshots]` says `listening on URI` and serves until it is killed.
//! `wire ask HOST:PORT DB COMMAND FIELDS` sends a command with the fields of a JSON document and prints the reply.
//! `wire scan HOST:PORT PARALLEL DB.NAME..` reads collections and throws them away.
//! `wire fill HOST:PORT DB.NAME:BYTES:DOCSIZE..` inserts documents.
#![allow(missing_docs)]

#[path = "wire/double.rs"]
mod double;

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use double::client::Client;
use double::generate::Ids;
use double::{Double, Fed, Options};
use mongodb::bson::{Bson, Document};

type Outcome<T> = Result<T, String>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["serve", rest @ ..] => serve(rest),
        ["ask", address, db, name, fields] => ask(address, db, name, fields),
        ["scan", address, parallel, names @ ..] => scan(address, parallel, names),
        ["fill", address, fed @ ..] => fill(address, fed),
        _ => Err("usage: wire serve|ask|scan|fill ..., see its first lines".to_owned()),
    };
    if let Err(why) = done {
        eprintln!("{why}");
        std::process::exit(1);
    }
}

fn serve(arguments: &[&str]) -> Outcome<()> {
    let (mut options, mut port, mut fed) = (Options::default(), 0, Vec::new());
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let mut value = || rest.next().copied().ok_or_else(|| format!("{name} wants a value"));
        match *name {
            "--port" => port = value()?.parse().map_err(|_| "no port".to_owned())?,
            "--rtt" => {
                let ms = value()?.strip_suffix("ms").and_then(|ms| ms.parse().ok());
                options.rtt = Duration::from_millis(ms.ok_or("--rtt wants milliseconds: 1ms")?);
            }
            "--version" => options.version = value()?.to_owned(),
            "--collection" => fed.push(collection(value()?)?),
            "--small" => fed.extend(small(value()?)?),
            "--no-apply-ops" => options.apply_ops = false,
            "--no-snapshots" => options.snapshots = false,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    let double = Double::start(options, port).map_err(|error| error.to_string())?;
    double.feed(&fed).map_err(|error| error.to_string())?;
    println!("listening on {}", double.uri());
    std::io::stdout().flush().map_err(|error| error.to_string())?;
    loop {
        std::thread::park();
    }
}

/// `db.name:BYTES:DOCSIZE`, with `:long` for ids that are numbers.
fn collection(text: &str) -> Outcome<Fed> {
    let complaint = || format!("{text}: DB.NAME:BYTES:DOCSIZE is wanted");
    let parts: Vec<&str> = text.split(':').collect();
    let [name, bytes, document, ids @ ..] = parts.as_slice() else { return Err(complaint()) };
    let (db, name) = name.split_once('.').ok_or_else(complaint)?;
    Ok(Fed {
        db: db.to_owned(),
        name: name.to_owned(),
        bytes: bytes.parse().map_err(|_| complaint())?,
        document: document.parse().map_err(|_| complaint())?,
        ids: if ids == ["long"] { Ids::Long } else { Ids::ObjectId },
    })
}

/// Many collections of so many documents of 1 KB each.
fn small(text: &str) -> Outcome<Vec<Fed>> {
    let numbers =
        text.split_once(':').and_then(|(many, each)| Some((many.parse().ok()?, each.parse().ok()?)));
    let (many, each): (usize, u64) =
        numbers.ok_or_else(|| format!("{text}: COLLECTIONS:DOCUMENTS is wanted"))?;
    let one = |n| Fed {
        db: "small".to_owned(),
        name: format!("c{n:04}"),
        bytes: each * 1_000,
        document: 1_000,
        ids: Ids::ObjectId,
    };
    Ok((0..many).map(one).collect())
}

fn connect(address: &str) -> Outcome<Client> {
    Client::connect(address).map_err(|error| format!("{address}: {error}"))
}

fn ask(address: &str, db: &str, name: &str, fields: &str) -> Outcome<()> {
    let mut fields: Document = serde_json::from_str(fields).map_err(|error| error.to_string())?;
    // The command's name comes first.
    let mut command = Document::new();
    command.insert(name, fields.remove(name).unwrap_or(Bson::Int32(1)));
    command.extend(fields);
    let reply = connect(address)?.ask(db, command).map_err(|error| error.to_string())?;
    println!("{}", serde_json::to_string(&reply).map_err(|error| error.to_string())?);
    Ok(())
}

/// Some connections at once, each with a collection at a time.
fn scan(address: &str, parallel: &str, names: &[&str]) -> Outcome<()> {
    let parallel: usize = parallel.parse().map_err(|_| format!("{parallel}: a number is wanted"))?;
    let waiting = Mutex::new(names.iter().copied().collect::<VecDeque<&str>>());
    let work = || -> Outcome<u64> {
        let (mut client, mut read) = (connect(address)?, 0);
        loop {
            let next = waiting.lock().expect("no holder panics").pop_front();
            let Some(name) = next else { return Ok(read) };
            let (db, name) = name.split_once('.').ok_or_else(|| format!("{name}: DB.NAME is wanted"))?;
            read += client.scan(db, name).map_err(|error| error.to_string())?;
        }
    };
    let read: Outcome<Vec<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..parallel).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("scans do not panic")).collect()
    });
    println!("{}", read?.iter().sum::<u64>());
    Ok(())
}

fn fill(address: &str, fed: &[&str]) -> Outcome<()> {
    let mut client = connect(address)?;
    for one in fed {
        let one = collection(one)?;
        let filled = client.fill(&one.db, &one.name, one.bytes, one.document);
        filled.map_err(|error| format!("{}.{}: {error}", one.db, one.name))?;
    }
    Ok(())
}
