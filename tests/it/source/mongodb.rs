mod follow;
mod ground;
mod oplog;
mod records;
mod tail;
mod transactions;
