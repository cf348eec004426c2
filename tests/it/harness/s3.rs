//! S3 servers.
