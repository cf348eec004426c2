//! Tables and colours.

use jiff::Timestamp;
use tidekeeper::cli::look::{Cell, Facts, Look, Table, Tone};

const PLAIN: Look = Look { colour: false, now: Timestamp::UNIX_EPOCH };
const COLOURED: Look = Look { colour: true, now: Timestamp::UNIX_EPOCH };

fn table() -> Table {
    let mut table = Table::new(["NAME", "SIZE", "NOTE"]);
    table.row([Cell::text("a").tone(Tone::Good), Cell::number("1"), Cell::text("")]);
    table.row([Cell::text("größer"), Cell::number("12345"), Cell::text("x")]);
    table
}

#[test]
fn columns_stand_in_line() {
    assert_eq!(table().show(&PLAIN), "NAME     SIZE  NOTE\na           1\ngrößer  12345  x\n");
}

#[test]
fn colours_change_no_widths() {
    let shown = table().show(&COLOURED);
    assert!(shown.contains("\x1b[32ma\x1b[0m"), "{shown:?}");
    let mut plain = String::new();
    let mut rest = shown.as_str();
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = after.split_once('m').expect("a whole sequence").1;
    }
    assert_eq!(plain + rest, table().show(&PLAIN));
}

#[test]
fn facts_leave_out_what_is_not_there() {
    let mut facts = Facts::default();
    facts.add("status", "complete");
    facts.add("reason", "");
    facts.add("of", "x");
    assert_eq!(facts.show(&PLAIN), "status  complete\nof      x\n");
}
