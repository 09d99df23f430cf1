//! Several streams under one scope.

use shm_lock::Wait;

use crate::error::{Error, ErrorKind, Result};
use crate::stream::locked::Locked;
use crate::stream::writer::Writer;

/// Locks the streams of all writers, in the order of their names so that two callers cannot lock
/// each other out, under one deadline. The locks come back in the caller's order; if one fails,
/// none is held.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] if two writers are on the same stream; else as [`Writer::lock`].
pub fn locked_many<'w>(
    writers: impl IntoIterator<Item = &'w mut Writer>,
    wait: &Wait<'_>,
) -> Result<Vec<Locked<'w>>> {
    let writers: Vec<&'w Writer> = writers.into_iter().map(|writer| &*writer).collect();
    let mut order: Vec<usize> = (0..writers.len()).collect();
    let key = |index: usize| {
        let segment = &writers[index].attachment().segment;
        (segment.name().as_str(), segment.generation())
    };
    order.sort_by_key(|&index| key(index));
    if let Some(pair) = order.windows(2).find(|pair| key(pair[0]) == key(pair[1])) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "two of the writers are on stream `{}`: pass one writer for each stream",
                key(pair[0]).0
            ),
        ));
    }
    // One deadline for all: it is absolute, so it can be handed on as it is.
    let mut locked: Vec<Option<Locked<'w>>> = writers.iter().map(|_| None).collect();
    for index in order {
        locked[index] = Some(Locked::acquire(writers[index].attachment(), wait)?);
    }
    Ok(locked.into_iter().flatten().collect())
}
