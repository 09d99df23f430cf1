//! `shm-core` through its public interface, from one process and from many.

#![expect(clippy::print_stdout, reason = "peers speak on it, and counts are shown")]

mod attach;
mod churn;
mod harness;
mod hostile;
mod lifecycle;
mod listing;
mod messages;
mod names;
mod pages;
mod permissions;
mod region;
mod removal;
mod space;
mod views;
mod without_proc;

#[cfg(st_fault)]
mod fault;
#[cfg(st_fault)]
mod frozen;

#[expect(unsafe_code, reason = "fork, and loads from read-only mappings, have no safe form")]
mod sys;
