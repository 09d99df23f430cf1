//! What is asked, before it is known over which connection.

use super::link::{Link, Parcel};
use super::{Arguments, Error};
use crate::service::region::Id;
use crate::service::wire::messages::{TaskAsk, encode};
use crate::service::wire::payload::Packer;

#[derive(Clone, Copy)]
pub(super) enum Letter<'a> {
    /// A structure, encoded.
    Plain(&'a [u8]),
    /// Values for an endpoint, within another call or none (0).
    Call { endpoint: &'a str, arguments: &'a Arguments, parent: u64 },
    /// About a task, with progress.
    Task(Id),
}

impl Letter<'_> {
    /// Ready to be sent over `link`; what is told meanwhile goes by `ticket`.
    pub(super) fn parcel(self, link: &Link, ticket: u64) -> Result<Parcel<'_>, Error> {
        match self {
            Self::Plain(body) => Ok(Parcel::plain(body.to_vec())),
            Self::Call { endpoint, arguments, parent } => {
                let mut packer = Packer::default();
                packer.values(&arguments.positional)?;
                packer.named(&arguments.named)?;
                let payload = packer.finish(link.payload_bytes_max())?;
                link.request(endpoint, &payload, ticket, parent)
            }
            Self::Task(task) => {
                let ask = TaskAsk { task, ticket, is_cooperative: false };
                Ok(Parcel::plain(encode(&ask)))
            }
        }
    }
}
