//! One streaming pipeline: zstd -> age (optional) -> SHA-256 -> spool -> store, a decoder reading back beside it; and its inverse.
