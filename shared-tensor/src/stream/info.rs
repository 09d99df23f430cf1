//! What can be said about a stream.

use cuda_ipc::Uuid;
use shm_core::{Creator, Generation, PopulateReport, Segment};

use crate::ring::word::{Ctl, Phase};
use crate::ring::{Look, RingLoads, is_unchanged, newest};
use crate::stream::attachment::{Attachment, Role};
use crate::stream::counters::{ReaderFigures, WriterFigures};
use crate::stream::description::{Description, Publication};
use crate::stream::layout::{Layout, flags};
use crate::stream::wait::{died_writing, writer_has_left};
use crate::sync::Ordering;
use crate::tensor::{DType, Shape};

/// A stream's geometry, state, counters and guarantees at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct StreamInfo {
    /// The name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape of every frame.
    pub shape: Shape,
    /// Bytes of a frame.
    pub frame_bytes: usize,
    /// Bytes of the file.
    pub total_bytes: u64,
    /// Slots of the ring.
    pub slots: usize,
    /// The GPU that the stream was created on; `None` for a stream of the CPU.
    pub device: Option<Uuid>,
    /// Whether the frames are in the stream's file: those of a stream of the CPU, and of one of a GPU whose
    /// memory cannot be shared, for which `warnings` says why. Those of a mirrored stream are on its GPU.
    pub frames_in_file: bool,
    /// By what the work of this process's GPUs on the frames is ordered: by the device, so that no call waits
    /// for it, or by the host, where the driver lacks the operations or the frames are in the file. `None` as
    /// long as this process has no writer or reader on a GPU.
    pub ordering: Option<cuda_ipc::Ordering>,
    /// Distinct frames that may be leased at once; further leases are private copies.
    pub leases_max: usize,
    /// Which creation of the name this is.
    pub generation: Generation,
    /// Who created it, and when.
    pub creator: Creator,
    /// The creator's number for whoever opens the stream.
    pub tag: u32,
    /// Frames published.
    pub count: u64,
    /// The newest frame, as a reader would be told of it; `None` before the first one.
    pub newest: Option<Publication>,
    /// What the write side is doing.
    pub phase: Phase,
    /// Whether the name was unlinked.
    pub unlinked: bool,
    /// Whether the frames are on a GPU and in the stream's file as well.
    pub mirrored: bool,
    /// Whether every publication wakes, because the mode admits readers that cannot say they wait.
    pub always_wakes: bool,
    /// Counters of the write side.
    pub writer: WriterFigures,
    /// Processes attached with write permission on the control page; empty from
    /// [`stat`](crate::stream::stat).
    pub participants: Vec<ParticipantInfo>,
    /// Whether this handle's process has no write permission at all: it copies, waits in slices of
    /// at most 50 ms unless the stream always wakes, and takes no lease.
    pub observer: bool,
    /// What population of the ring's pages has obtained so far, huge pages included, if this process
    /// writes and the ring is large enough to be populated ahead.
    pub population: Option<PopulateReport>,
    /// Guarantees that this stream or handle does not give, that its name is gone, or that its writer
    /// died during a write, in words; usually empty.
    pub warnings: Vec<String>,
}

/// One attached process.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ParticipantInfo {
    /// Process id, in the namespace of that process.
    pub pid: u32,
    /// User id.
    pub uid: u32,
    /// Whether it still runs, as far as can be proved.
    pub alive: bool,
    /// Distinct frames that it has leased.
    pub leases: u32,
    /// Its read counters.
    pub reader: ReaderFigures,
    /// Frames published since its last read; all of them for a process that has read none, such as
    /// one that only writes.
    pub lag: u64,
}

impl StreamInfo {
    pub(crate) fn of(
        segment: &Segment,
        layout: &Layout,
        ctl: Ctl,
        newest: Option<Publication>,
        writer: WriterFigures,
    ) -> Self {
        Self {
            name: segment.name().as_str().to_owned(),
            dtype: layout.dtype,
            shape: layout.shape.clone(),
            frame_bytes: layout.payload_bytes,
            total_bytes: layout.total_bytes,
            slots: layout.slots,
            device: layout.place.device(),
            frames_in_file: layout.label().is_none(),
            ordering: None,
            leases_max: layout.leases_max(),
            generation: segment.generation(),
            creator: segment.creator(),
            tag: layout.tag,
            count: ctl.count(),
            newest,
            phase: ctl.phase(),
            unlinked: ctl.is_unlinked(),
            mirrored: layout.is_mirrored(),
            always_wakes: layout.always_wakes(),
            writer,
            participants: Vec::new(),
            observer: false,
            population: None,
            warnings: warnings(layout, ctl),
        }
    }

    /// Says that the write in progress will never end: `why`, in words.
    pub(crate) fn has_crashed(&mut self, why: String) {
        self.phase = Phase::Crashed;
        if let Some(newest) = &mut self.newest {
            newest.phase = Phase::Crashed;
        }
        self.warnings.push(why);
    }
}

const LOOKS_MAX: u32 = 1_000;

/// What the newest frame's description says; `None` before the first frame, and if the only slot is
/// being written or the page is damaged.
pub(crate) fn newest_publication(
    ring: &impl RingLoads,
    describe: impl Fn(usize) -> Description,
) -> Option<Publication> {
    // A writer overtakes one look in a million: more often than this, the page is being vandalised.
    for _ in 0..LOOKS_MAX {
        match newest(ring) {
            Look::Frame(found) => {
                let description = describe(found.slot);
                if is_unchanged(ring, &found) {
                    let count = found.seq.frame();
                    return (count > 0)
                        .then(|| description.publication(count, 0, found.ctl.phase()));
                }
            }
            Look::Moved(_) if ring.slots() > 1 => {}
            Look::Moved(_) | Look::Pending(_) | Look::Damaged => return None,
        }
    }
    None
}

/// What a small ring cannot promise, and what a stream without a name cannot.
fn warnings(layout: &Layout, ctl: Ctl) -> Vec<String> {
    let mut warnings = Vec::new();
    if ctl.is_unlinked() {
        warnings.push(
            "the name was unlinked: nobody new can open this stream, and a stream of that name is \
             another one"
                .to_owned(),
        );
    }
    if layout.flags & flags::STEPPED_DOWN != 0 {
        let payload = layout.payload_bytes as u64;
        warnings.push(format!(
            "space was short at creation: the ring has {} slots instead of {}",
            layout.slots,
            Layout::default_slots(payload)
        ));
    }
    if let Some(why) = layout.place.unshared() {
        warnings.push(format!(
            "the frames are in the stream's file, where processes without CUDA find them, too, and each \
             copy between there and a GPU is waited for: {why}"
        ));
    }
    match layout.slots {
        1 => warnings.push(
            "one slot: readers wait while a frame is written, an aborted or crashed write leaves \
             no frame, nothing can be leased"
                .to_owned(),
        ),
        2 => warnings.push(
            "two slots: nothing can be leased, and a reader slower than the writer may have to \
             copy several times"
                .to_owned(),
        ),
        _ => {}
    }
    warnings
}

pub(crate) fn gather(attachment: &Attachment) -> StreamInfo {
    let ctl = attachment.ctl(Ordering::Acquire);
    let mut info = gather_at(attachment, ctl);
    if ctl.phase() == Phase::Writing && writer_has_left(attachment, ctl) {
        info.has_crashed(died_writing(attachment));
    }
    info
}

fn gather_at(attachment: &Attachment, ctl: Ctl) -> StreamInfo {
    let newest = newest_publication(attachment, |slot| attachment.description(slot));
    match &attachment.role {
        Role::Observer(memory) => {
            let writer = memory.observed.writer_counters();
            let mut info =
                StreamInfo::of(&attachment.segment, &attachment.layout, ctl, newest, writer);
            info.observer = true;
            let waits = if info.always_wakes { "" } else { ", and waits are slices of 50 ms" };
            info.warnings.push(format!(
                "no write permission on the stream's file: frames are copied, never leased{waits}"
            ));
            info
        }
        Role::Member(member) => {
            let writer = WriterFigures::load(&member.memory.shared.control().writer.0);
            let mut info =
                StreamInfo::of(&attachment.segment, &attachment.layout, ctl, newest, writer);
            info.population = attachment.population();
            info.ordering = attachment.ordering();
            if info.ordering == Some(cuda_ipc::Ordering::Host) && !info.frames_in_file {
                info.warnings.push(
                    "the driver has no words that a GPU waits for and writes: calls wait for the GPU"
                        .to_owned(),
                );
            }
            info.participants = member
                .membership
                .participants()
                .into_iter()
                .map(|participant| {
                    let record = member.memory.record(participant.slot);
                    let reader = ReaderFigures::load(&record.reader.0);
                    let lease = record.lease.0.load(Ordering::Relaxed);
                    ParticipantInfo {
                        pid: participant.pid,
                        uid: participant.uid,
                        alive: participant.liveness == shm_lock::Liveness::Alive,
                        leases: crate::ring::word::LeaseWord(lease).held_mask().count_ones(),
                        reader,
                        lag: ctl.count().saturating_sub(reader.last_count),
                    }
                })
                .collect();
            info
        }
    }
}
