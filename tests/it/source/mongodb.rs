mod archive;
mod extract;
mod namespace;
