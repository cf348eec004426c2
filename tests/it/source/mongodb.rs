mod backup;
mod digest;
mod extjson;
mod faults;
mod inspect;
mod ranges;
mod stage;
