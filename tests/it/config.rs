//! `tidekeeper.yaml` and `schedules/*.yaml`.

mod shape;
