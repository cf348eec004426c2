//! Tidekeeper: backs up what lives in a Kubernetes cluster on AWS, and proves that it comes back.
//!
//! The rooms, from the door to the cellar. A room imports only from rooms below its own line; the tidy test holds this.

pub mod api;
pub mod cli;

pub mod app;

pub mod engine;

pub mod source;
pub mod vault;

pub mod config;
pub mod task;

pub mod aws;

pub mod clock;
pub mod error;
pub mod finding;
pub mod telemetry;
pub mod words;
