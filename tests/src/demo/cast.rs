//! The processes of the demo: a writer, its successor, three readers.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use super::Stop;
use super::company::Company;
use super::credit::Credit;
use super::reader::Manner;
use super::report::{Read, Written};
use super::table::Figures;
use crate::{Namespace, Peer};

pub(super) struct Cast {
    pub(super) writer: Peer,
    written_by: Credit,
    readers: Vec<(Credit, Peer)>,
}

impl Cast {
    /// Starts the first writer and the readers. They wait for what they are told.
    pub(super) fn start(
        space: &Namespace,
        company: &Company,
        photographs: &[PathBuf],
    ) -> Result<Self, Stop> {
        let reader = |manner: Manner| {
            let credit = company.reader(manner);
            Ok((credit, Peer::start(space, credit.role, company.program(credit)?)))
        };
        let readers = Manner::ALL.into_iter().map(reader).collect::<Result<_, Stop>>()?;
        let writer = writer(space, company, 1, photographs)?;
        Ok(Self { writer, written_by: company.writer(), readers })
    }

    pub(super) fn begin_act(&mut self) {
        for (_, reader) in &mut self.readers {
            reader.ask("act");
        }
    }

    /// What the readers did since the act began.
    ///
    /// # Errors
    /// When one found a frame wrong, or could not read.
    pub(super) fn read(&mut self) -> Result<Vec<(Credit, Read)>, Stop> {
        let mut all = Vec::new();
        for (credit, reader) in &mut self.readers {
            let read: Read = parse(&reader.ask("report"))?;
            if read.faults != 0 {
                let fault = reader.ask("fault");
                return Err(Stop::Failed(format!("reader `{credit}`: {fault}")));
            }
            all.push((*credit, read));
        }
        Ok(all)
    }

    /// What everybody did since the act began.
    pub(super) fn figures(&mut self) -> Result<Figures, Stop> {
        let written: Written = parse(&self.writer.ask("report"))?;
        Ok(Figures { written: (self.written_by, written), read: self.read()? })
    }

    /// Ends them all, well.
    pub(super) fn quit(self) {
        self.readers.into_iter().for_each(|(_, reader)| reader.quit());
        self.writer.quit();
    }
}

/// Starts a writer, which is ready when this returns.
pub(super) fn writer(
    space: &Namespace,
    company: &Company,
    number: u32,
    photographs: &[PathBuf],
) -> Result<Peer, Stop> {
    let mut command = company.program(company.writer())?;
    command.args(["--number", &number.to_string()]).args(photographs);
    let mut writer = Peer::start(space, &format!("writer {number}"), command);
    writer.say("ready");
    let answer = writer.hear();
    match answer.strip_prefix("error ") {
        Some(why) => Err(Stop::Failed(why.to_owned())),
        None => Ok(writer),
    }
}

/// An answer as what it stands for.
pub(super) fn parse<T: FromStr>(words: &str) -> Result<T, Stop>
where
    T::Err: Display,
{
    words.parse().map_err(|error: T::Err| Stop::Failed(format!("`{words}`: {error}")))
}
