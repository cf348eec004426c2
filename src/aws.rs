//! AWS clients are made here, from one shared configuration.

use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};

/// How long a TCP and TLS handshake may take. A healthy one takes a fraction of a second, also across continents.
const CONNECT: Duration = Duration::from_secs(10);

/// The configuration that every AWS client of this process starts from: credentials from the usual chain (environment,
/// profile, web identity, container, instance), never anonymous; `region` if given, else from the same chain.
///
/// Retries are off and so is the SDK's own watch over stalled streams: callers retry and limit every call themselves,
/// by the one [clock](crate::clock), so that it is bounded, testable and the same for all stores.
pub async fn config(region: Option<&str>) -> SdkConfig {
    let loader = base();
    match region {
        Some(region) => loader.region(Region::new(region.to_owned())).load().await,
        None => loader.load().await,
    }
}

/// The same for a server that is not AWS's: most of them take any region, so a missing one is no mistake and is not
/// searched for on the network.
pub async fn config_for_custom_endpoint(region: Option<&str>) -> SdkConfig {
    let region = RegionProviderChain::first_try(region.map(|region| Region::new(region.to_owned())))
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(Region::from_static("us-east-1"));
    base().region(region).load().await
}

fn base() -> aws_config::ConfigLoader {
    aws_config::defaults(BehaviorVersion::latest())
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
}
