//! How large and how many.

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Bytes of an object.
    pub(crate) bytes: u64,
    /// Bytes of each of its chunks.
    pub(crate) chunk: u64,
    /// How many processes are killed.
    pub(crate) kills: usize,
    /// How many of them live at a time, at most.
    pub(crate) at_once: usize,
    /// How many processes read meanwhile.
    pub(crate) readers: usize,
}

impl Plan {
    /// From arguments of the form `--name=number`; the others are for somebody else.
    pub(crate) fn read(arguments: impl Iterator<Item = String>) -> Self {
        let mut plan = Self { bytes: 8 << 20, chunk: 4 << 20, kills: 5, at_once: 3, readers: 2 };
        for argument in arguments {
            let Some((name, number)) = argument.split_once('=') else { continue };
            let number: u64 = number.parse().expect("a number after the `=`");
            let few = usize::try_from(number).expect("64 bits");
            match name {
                "--bytes" => plan.bytes = number,
                "--chunk" => plan.chunk = number,
                "--kills" => plan.kills = few,
                "--at-once" => plan.at_once = few,
                "--readers" => plan.readers = few,
                _ => panic!(
                    "there is no {name}: it is --bytes, --chunk, --kills, --at-once, --readers"
                ),
            }
        }
        assert!(plan.chunk.is_multiple_of(2 << 20) && plan.bytes.is_multiple_of(plan.chunk));
        assert!(plan.bytes > 0 && plan.kills > 0 && plan.at_once > 0 && plan.readers > 0);
        plan
    }
}
