//! Streams whose frames are on a GPU.

mod lanes;
mod seat;
