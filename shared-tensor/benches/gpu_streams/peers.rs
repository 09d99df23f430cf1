//! Frames of one GPU that another one reads and writes, beside copies between the two alone.

use std::io::Write as _;

use cuda_ipc::{Access, Chunk, Context, Copies, Mapping, probe};
use shared_tensor::DType;
use shared_tensor::shm::Namespace;
use shared_tensor::stream::{
    GpuReader, GpuWriter, ReaderOptions, Source, Stamp, StreamOptions, Wait,
};

use crate::figures::{Figures, Limit, middle};
use crate::pair::{FEW, OF_COPIES, SLOTS, sustained};
use crate::{MB, Plan, name_of, patience, room};

const VALUE: u8 = 0xa5;

/// Whoever is on the other GPU.
struct Ground {
    work: Copies,
    writer: GpuWriter,
    reader: GpuReader,
    bytes: u64,
    /// Memory of the other GPU, for what is written and what is read.
    own: [Mapping; 2],
    /// Memory of the first one, as the other reaches it.
    far: Mapping,
    wait: Wait<'static>,
}

impl Ground {
    fn write(&mut self) {
        let source = Source::Device(self.own[0].address());
        let written = self.writer.write(self.work.stream(), source, &Stamp::default(), &self.wait);
        written.expect("published");
    }

    fn read(&mut self) {
        let to = self.own[1].address();
        self.reader.latest_into(self.work.stream(), to, &self.wait).expect("queued");
    }

    fn finish(&self) {
        self.work.synchronize().expect("done");
    }

    /// The link's rate is that of these.
    fn copy(&self, to: &Mapping, from: &Mapping) {
        self.work.copy(to.address(), from.address(), self.bytes).expect("queued");
    }
}

/// A GPU that reaches the first one's memory and is reached by it; says so if there is none.
pub(crate) fn second(first: &Context) -> Option<Context> {
    let devices = probe().expect("a driver").devices().expect("devices");
    let first = first.device();
    let reach = |one: &cuda_ipc::Device, other| one.can_access(other).expect("an answer");
    let mut others = devices.iter().filter(|it| it.uuid() != first.uuid());
    let Some(second) = others.find(|it| reach(it, first) && reach(first, it)) else {
        let why = "another GPU reads and writes: not measured, there is none that reaches this one";
        writeln!(std::io::stdout(), "{why}").expect("somebody listens");
        return None;
    };
    Some(second.context().expect("a context"))
}

pub(crate) fn measure(plan: &Plan, first: &Context, other: &Context, figures: &mut Figures) {
    let bytes = if plan.is_small { 4 * MB } else { 400 * MB };
    let prefix = format!("st-bench.{}.", std::process::id());
    let namespace = Namespace::new("/dev/shm", &prefix).expect("a prefix");
    let options = StreamOptions::new(DType::U8, [bytes as u64]).slots(SLOTS).namespace(namespace);
    let stream = options.create_on(first, "peers").expect("a stream");
    let far = Chunk::create(first.device(), bytes as u64).expect("memory");
    let mut ground = Ground {
        work: Copies::new(other).expect("a stream"),
        writer: stream.writer_on(other, &patience()).expect("a writer"),
        reader: stream.reader_on(other, ReaderOptions::new(), &patience()).expect("a reader"),
        bytes: bytes as u64,
        own: [room(other, bytes), room(other, bytes)],
        far: Mapping::open(other, &[&far], Access::ReadWrite).expect("mapped"),
        wait: patience(),
    };
    ground.work.fill(ground.own[0].address(), VALUE, ground.bytes).expect("queued");
    let rows = ["reads", "writes"].map(|what| format!("another GPU {what}, {}", name_of(bytes)));
    // What is read has come over the link before.
    ground.write();
    for (row, is_read) in rows.iter().zip([true, false]) {
        let once = |it: &mut Ground| if is_read { it.read() } else { it.write() };
        let (took, calls) = sustained(&mut ground, FEW, once, Ground::finish);
        figures.add(row, Limit::OfFloor(OF_COPIES), took, &calls);
        figures.add_device(row, other.device());
        let once = |it: &mut Ground| {
            if is_read { it.copy(&it.own[1], &it.far) } else { it.copy(&it.far, &it.own[0]) }
        };
        let (took, _) = sustained(&mut ground, FEW, once, Ground::finish);
        figures.add_floor(row, middle(&took).expect("a batch"));
    }
    ground.read();
    let mut found = vec![0; bytes];
    ground.work.download(&mut found, ground.own[1].address()).expect("done");
    assert!(found.iter().all(|it| *it == VALUE), "a frame came that was not written");
    stream.unlink().expect("unlinked");
    drop((ground, stream));
    let soon = std::time::Instant::now() + std::time::Duration::from_secs(30);
    assert!(cuda_ipc::flush(soon), "what was mapped can be unmapped");
}
