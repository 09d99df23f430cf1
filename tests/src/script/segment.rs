//! Commands on segments.

use std::collections::HashMap;

use shm_core::{Access, Current, Kind, Namespace, Segment, SegmentName, SegmentOptions, Unlinked};

use super::{Answer, Subject, number, said, word};

/// The format of the segments that peers make: plain bytes.
pub const KIND: Kind = Kind { magic: *b"ST-TEST\n", version: 1 };

/// The segments that a peer has open, by name.
///
/// | command | answer |
/// |---|---|
/// | `segment.create NAME BYTES TEXT` | `ok` generation; TEXT stands at the front before the name exists |
/// | `segment.open NAME` | `ok` generation, bytes |
/// | `segment.write NAME TEXT` | `ok` |
/// | `segment.read NAME COUNT` | `ok` the first COUNT bytes as text |
/// | `segment.current NAME` | `ok` `yes`, `gone` or `replaced` |
/// | `segment.attached NAME` | `ok` `true` or `false` |
/// | `segment.unlink NAME` | `ok` `removed`, `absent` or `replaced` |
/// | `segment.close NAME` | `ok` |
/// | `segment.list` | `ok` the names, sorted |
/// | `segment.churn NAME TIMES SEED` | `ok` how often it created, opened and unlinked |
#[derive(Debug)]
pub struct Segments {
    namespace: Namespace,
    open: HashMap<String, Segment>,
}

impl Segments {
    /// None yet.
    pub fn new(namespace: Namespace) -> Self {
        Self { namespace, open: HashMap::new() }
    }

    fn find(&self, name: &str) -> Result<&Segment, String> {
        self.open.get(name).ok_or_else(|| format!("segment `{name}` is not open"))
    }

    fn create(&self, name: &SegmentName, bytes: u64, text: &str) -> Result<Segment, String> {
        let options = SegmentOptions::new(KIND, FRONT + bytes);
        let segment = options.create(&self.namespace, name, |segment| {
            write(segment, text).map_err(std::io::Error::other)
        });
        segment.map_err(said)
    }

    /// Creates, opens and removes one name as fast as it can, beside others who do the same. What
    /// others make possible is not an error; anything else is.
    fn churn(&self, name: &SegmentName, times: u64, seed: u64) -> Answer {
        use shm_core::{CreateError, OpenError};
        let (mut created, mut opened, mut unlinked) = (0_u64, 0_u64, 0_u64);
        let mut seed = crate::Seed::new(seed);
        for _ in 0..times {
            match seed.below(3) {
                0 => match SegmentOptions::new(KIND, FRONT + 4096).create(
                    &self.namespace,
                    name,
                    |segment| write(segment, "whole").map_err(std::io::Error::other),
                ) {
                    Ok(_) => created += 1,
                    Err(CreateError::AlreadyExists { .. }) => {}
                    Err(error) => return Err(said(error)),
                },
                1 => match Segment::open(&self.namespace, name, Access::ReadWrite, KIND) {
                    Ok(segment) if read(&segment, 5)? == "whole" => opened += 1,
                    Ok(_) => return Err("an openable name was not whole".to_owned()),
                    Err(OpenError::NotFound { .. }) => {}
                    Err(error) => return Err(said(error)),
                },
                _ => match self.namespace.unlink(name).map_err(said)? {
                    Unlinked::Removed(_) => unlinked += 1,
                    Unlinked::Absent | Unlinked::Replaced(_) => {}
                },
            }
        }
        Ok(format!("{created} {opened} {unlinked}"))
    }
}

impl Subject for Segments {
    fn name(&self) -> &'static str {
        "segment"
    }

    fn run(&mut self, verb: &str, words: &[&str]) -> Answer {
        if verb == "list" {
            let names = self.namespace.list().map_err(said)?;
            let names: Vec<&str> = names.iter().map(|listing| listing.name.as_str()).collect();
            return Ok(names.join(" "));
        }
        let key = word(words, 0, "the name")?;
        let name = SegmentName::new(key).map_err(said)?;
        match verb {
            "create" => {
                let segment =
                    self.create(&name, number(words, 1, "the size")?, &words[2..].join(" "))?;
                let generation = segment.generation().to_string();
                self.open.insert(key.to_owned(), segment);
                Ok(generation)
            }
            "open" => {
                let segment = Segment::open(&self.namespace, &name, Access::ReadWrite, KIND);
                let segment = segment.map_err(said)?;
                let answer = format!("{} {}", segment.generation(), segment.total_bytes() - FRONT);
                self.open.insert(key.to_owned(), segment);
                Ok(answer)
            }
            "write" => write(self.find(key)?, &words[1..].join(" ")).map(|()| String::new()),
            "read" => read(self.find(key)?, number(words, 1, "the count")?),
            "current" => Ok(match self.find(key)?.is_current().map_err(said)? {
                Current::Yes => "yes",
                Current::Gone => "gone",
                Current::Replaced(_) => "replaced",
            }
            .to_owned()),
            "attached" => self.find(key)?.is_attached().map(|it| it.to_string()).map_err(said),
            "unlink" => Ok(match self.namespace.unlink(&name).map_err(said)? {
                Unlinked::Removed(_) => "removed",
                Unlinked::Absent => "absent",
                Unlinked::Replaced(_) => "replaced",
            }
            .to_owned()),
            "close" => match self.open.remove(key) {
                Some(_) => Ok(String::new()),
                None => Err(format!("segment `{key}` is not open")),
            },
            "churn" => {
                self.churn(&name, number(words, 1, "the times")?, number(words, 2, "the seed")?)
            }
            _ => Err(format!("unknown command `segment.{verb}`")),
        }
    }
}

/// Where the contents begin: the page after the header of shm-core.
const FRONT: u64 = 4096;

fn write(segment: &Segment, text: &str) -> Result<(), String> {
    let bytes = segment.map(FRONT..segment.total_bytes(), Access::ReadWrite).map_err(said)?;
    bytes.write_from(0, text.as_bytes()).map_err(said)
}

fn read(segment: &Segment, count: usize) -> Answer {
    let bytes = segment.map(FRONT..segment.total_bytes(), Access::ReadOnly).map_err(said)?;
    let mut text = vec![0; count];
    bytes.read_into(0, &mut text).map_err(said)?;
    String::from_utf8(text).map_err(said)
}
