//! Arguments in, one command out.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Whoever speaks TLS here (S3, HTTP, sources) takes the process's provider; with none chosen, first use is a panic.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    ExitCode::from(tidekeeper::cli::main(tidekeeper::api::serve))
}
