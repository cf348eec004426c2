mod pace;
mod spool;
