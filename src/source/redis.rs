//! Redis and Valkey: backed up as a replica, restored as a master.
