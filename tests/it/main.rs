//! Integration tests: one binary, modules mirrored on what they test, real servers from `harness`.
#![allow(missing_docs)]

mod harness;

mod api;
mod app;
mod cli;
mod config;
mod engine;
mod faults;
mod sim;
mod source;
mod task;
mod telemetry;
mod tidy;
mod vault;
