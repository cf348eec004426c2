mod diff;
mod history;
mod indexes;
mod replay;
mod route;
mod selection;
