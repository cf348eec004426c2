mod mongodb;
mod redis;
