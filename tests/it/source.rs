pub mod mongodb;
mod redis;
