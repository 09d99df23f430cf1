//! The public interface, by what it promises.

mod bombs;
mod budgets;
mod builds;
mod circles;
mod expiry;
mod harness;
mod invalidation;
mod leases;
mod stress;
mod tasks;
