//! Arguments in, one command out.

fn main() {
    // The AWS crates and redis' rustls would each choose a provider; two are a panic at first use.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
