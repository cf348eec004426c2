//! Arguments in, one command out.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The AWS crates and redis' rustls would each choose a provider; two are a panic at first use.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    ExitCode::from(tidekeeper::cli::main(tidekeeper::api::serve))
}
