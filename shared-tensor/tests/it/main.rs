//! The public interface of streams, within one process.

#![cfg(not(loom))]

mod damage;
mod leases;
mod names;
mod next;
mod observers;
mod owned;
mod publication;
mod rings;
mod support;
mod waits;
mod writing;
