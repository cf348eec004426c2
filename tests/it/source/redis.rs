mod backup;
mod cluster;
mod extract;
mod master;
mod preflight;
mod rdb;
mod restore;
