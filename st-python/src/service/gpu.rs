//! GPUs in Python: memory of theirs that is lent, and the order between streams of torch.
//!
//! Nothing here waits for a device. What is lent comes with a word that the lender's stream writes, and
//! whoever opens it has their own stream wait for that.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyMemoryError, PyRuntimeError};
use pyo3::prelude::*;
use shared_tensor::lock::PerProcess;
use shared_tensor::service::cuda::{
    Access, Backing, ChunkError, Context, Copies, Device, DeviceWords, Mapping, Ordering, Origin,
    Stream, Uuid, Words, flush, lost, origin, probe, share_in_place,
};
use shared_tensor::service::{
    Arena, Id, Place, REGIONS_MAX, Ready, Region, RegionError, Rights, Storage,
};

use super::storage::ServiceStorage;
use super::{addresses, janitor, torch_pool};
use crate::modules::memory::Memory;
use crate::sys;
use crate::sys::place;

/// What storages begin at, in bytes: as torch's own allocator has it.
const ALIGNMENT: u64 = 512;
/// Up to so many bytes storages share regions with what is lent at other times: making a region takes a
/// millisecond.
const SMALL: u64 = 1 << 20;
/// How many words a process writes for one GPU: streams share them beyond that.
const WORDS: u64 = 512;

/// A GPU of this process, with a context.
#[derive(Debug)]
struct Gpu {
    context: Context,
    /// Where ranges are moved from memory of torch into memory that can be lent.
    copies: Copies,
    words: Arc<DeviceWords>,
    /// Memory for small storages, for readers and for writers.
    arenas: [Arena; 2],
    /// The same words, as what is lent.
    region: Region,
    written: Mutex<Written>,
    /// Words of others, by the region they lie in.
    theirs: Mutex<HashMap<Id, Arc<DeviceWords>>>,
}

/// The next value of each word, and which stream has which.
#[derive(Debug, Default)]
struct Written {
    by_stream: HashMap<usize, u64>,
    values: HashMap<u64, u64>,
}

static GPUS: PerProcess<Mutex<HashMap<usize, Arc<Gpu>>>> = PerProcess::new();

/// What a program in Python does about a write that ended CUDA for it.
const ADVICE: &str = "what came from a server is read-only, unless its endpoint is shared with \
                      writable=True: change its clone() instead, and start this process again";

/// What an answer of the driver that was its last says of itself.
const LOST: &str = "CUDA is lost to this process";

fn failed(error: &impl std::fmt::Display) -> PyErr {
    PyRuntimeError::new_err(advised(error))
}

/// With what to do, if this is what ended CUDA. Other errors go on to be possible: of another GPU, say.
fn advised(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    match lost() {
        Some(first) if first.suspects() > 0 && text.contains(LOST) => format!("{text}; {ADVICE}"),
        _ => text,
    }
}

fn refused(error: &RegionError) -> PyErr {
    match error {
        RegionError::Chunk(ChunkError::OutOfMemory { .. }) => {
            PyMemoryError::new_err(error.to_string())
        }
        error => failed(error),
    }
}

/// The GPU with a number of this process, without a context.
fn device(ordinal: usize) -> PyResult<Device> {
    let driver = probe().map_err(|error| failed(&error))?;
    driver.device_at(ordinal).map_err(|error| failed(&error))
}

impl Gpu {
    fn at(ordinal: usize) -> PyResult<Arc<Self>> {
        let gpus = GPUS.get_or_init(Mutex::default);
        let mut gpus = gpus.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gpu) = gpus.get(&ordinal) {
            return Ok(Arc::clone(gpu));
        }
        let context = device(ordinal)?.context().map_err(|error| failed(&error))?;
        let copies = Copies::new(&context).map_err(|error| failed(&error))?;
        let region = Region::allocate(WORDS * 8).map_err(|error| refused(&error))?;
        let words = attached(&region, &context)?;
        let (written, theirs) = (Mutex::default(), Mutex::default());
        let arenas = [(); 2].map(|()| Arena::on(context.device().clone()));
        let gpu = Arc::new(Self { context, copies, words, arenas, region, written, theirs });
        gpus.insert(ordinal, Arc::clone(&gpu));
        drop(gpus);
        torch_pool::reach();
        Ok(gpu)
    }

    fn ordinal(&self) -> usize {
        self.context.device().ordinal()
    }

    /// Says for `storages` that they are there when everything queued in `stream` so far is done.
    fn publish(&self, storages: &[Storage], stream: &Stream) -> PyResult<()> {
        // Without a word they are there at once. Two processes whose streams wait for each other have
        // the device change between them each time, 100 us and more.
        if self.context.is_idle(stream).unwrap_or(false) {
            return Ok(());
        }
        let (index, value) = {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            let next = written.by_stream.len() as u64 % WORDS;
            let index = *written.by_stream.entry(stream.as_raw()).or_insert(next);
            let value = written.values.entry(index).or_insert(0);
            *value += 1;
            let value = *value;
            // Under the lock: a word only ever grows.
            let queued = self.words.write(stream, word(index), value);
            queued.map_err(|error| failed(&error))?;
            (index, value)
        };
        let ready = Ready::new(&self.region, index, value).map_err(|it| refused(&it))?;
        for storage in storages {
            storage.set_ready(ready.clone());
        }
        Ok(())
    }

    /// What is queued in `stream` from now on begins when the storage is there.
    fn await_ready(&self, storage: &Storage, stream: &Stream) -> PyResult<()> {
        let Some(ready) = storage.ready() else { return Ok(()) };
        let words = self.words_of(ready.words())?;
        let index = word(ready.index());
        if Ready::is_abandoned(words.load(index)) {
            return Err(PyRuntimeError::new_err(
                "the process that lent it died before its bytes were there",
            ));
        }
        // Most of what comes was ready long ago.
        if words.load(index).wrapping_sub(ready.value()).cast_signed() >= 0 {
            return Ok(());
        }
        words.wait(stream, index, ready.value()).map_err(|error| failed(&error))
    }

    fn words_of(&self, region: &Region) -> PyResult<Arc<DeviceWords>> {
        if *region == self.region {
            return Ok(Arc::clone(&self.words));
        }
        let mut theirs = self.theirs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(words) = theirs.get(&region.id()) {
            return Ok(Arc::clone(words));
        }
        let words = attached(region, &self.context)?;
        theirs.insert(region.id(), Arc::clone(&words));
        Ok(words)
    }

    /// The storage at an address of this process, for this GPU.
    fn open(&self, storage: &Storage) -> PyResult<Mapping> {
        let is_for_writing = storage.region().is_some_and(|it| it.rights() == Rights::Write);
        let access = if is_for_writing { Access::ReadWrite } else { Access::Read };
        storage.open(&self.context, access).map_err(|error| refused(&error))
    }
}

fn attached(region: &Region, context: &Context) -> PyResult<Arc<DeviceWords>> {
    let descriptor = region.descriptor(Rights::Write).map_err(|error| refused(&error))?;
    let words = Words::open(descriptor).map_err(|error| failed(&error))?;
    words.attach(context).map_err(|error| failed(&error))
}

/// A word's number was checked against its region when it came.
fn word(index: u64) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// Memory that its allocator has put together from pieces, each of which is shared once.
struct Pieces<'a> {
    context: &'a Context,
    known: BTreeMap<u64, Region>,
}

/// A message carries a few regions more.
const PIECES_MAX: usize = REGIONS_MAX - 10;

impl Pieces<'_> {
    /// The range as a storage over its pieces.
    fn storage(&mut self, address: u64, bytes: u64) -> PyResult<Option<Storage>> {
        let end = address.saturating_add(bytes);
        let (mut regions, mut offset, mut at) = (Vec::new(), 0, address);
        while at < end {
            let Some((base, region)) = self.piece(at)? else { return Ok(None) };
            if at == address {
                offset = at - base;
            }
            at = base + region.bytes();
            regions.push(region);
        }
        let storage = Storage::spanning(regions, offset, bytes);
        storage.map(Some).map_err(|error| failed(&error))
    }

    /// The piece that an address lies in, and where it begins.
    fn piece(&mut self, address: u64) -> PyResult<Option<(u64, Region)>> {
        if let Some((base, region)) = self.known.range(..=address).next_back()
            && address < base + region.bytes()
        {
            return Ok(Some((*base, region.clone())));
        }
        if self.known.len() == PIECES_MAX {
            return Ok(None);
        }
        let found = origin(self.context, address, 1).map_err(|error| failed(&error))?;
        if found != Origin::Chunks {
            return Ok(None);
        }
        let there = share_in_place(self.context, address, 1).map_err(|error| failed(&error))?;
        let Some(chunk) = there.chunks.into_iter().next() else { return Ok(None) };
        let (base, region) = (address - there.offset, Region::of_chunk(chunk));
        self.known.insert(base, region.clone());
        Ok(Some((base, region)))
    }
}

/// Why memory cannot be lent where it is, and what to do.
const NOT_IN_PLACE: &str = "copy=False lends memory of cudaMalloc, of expandable segments and of pools where \
                            it is, and this is of a stream-ordered memory pool (cudaMallocAsync) or was mapped \
                            by somebody who shares nothing: leave copy=False out, or have torch allocate \
                            otherwise (PYTORCH_CUDA_ALLOC_CONF)";

/// What keeps memory that is lent where it is. It ends on any thread.
struct Keeper(Option<Py<PyAny>>);

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            janitor::let_go(object);
        }
    }
}

/// How long room is waited for that mappings take which nobody uses any more.
pub(super) const ROOM: Duration = Duration::from_secs(2);

/// Allocates, once more if what lingers unused takes the room.
fn with_room<T>(allocate: impl Fn() -> Result<T, RegionError>) -> Result<T, RegionError> {
    match allocate() {
        Err(RegionError::Chunk(ChunkError::OutOfMemory { .. })) => {
            flush(Instant::now() + ROOM);
            allocate()
        }
        made => made,
    }
}

/// A GPU that torch uses in this process.
#[pyclass(frozen, module = "shared_tensor._native")]
pub(crate) struct ServiceGpu {
    gpu: Arc<Gpu>,
}

#[pymethods]
impl ServiceGpu {
    /// The one with torch's number. Takes the context that torch uses, too.
    ///
    /// Raises
    /// ------
    /// RuntimeError
    ///     If there is no driver, or no such GPU.
    #[new]
    fn new(py: Python<'_>, ordinal: usize) -> PyResult<Self> {
        Ok(Self { gpu: py.detach(|| Gpu::at(ordinal))? })
    }

    /// Its identity, which is the same in every process.
    #[getter]
    fn uuid(&self) -> String {
        self.gpu.context.device().uuid().to_string()
    }

    /// By what hand-over is ordered: ``device``, or ``host`` where the driver lacks the operations.
    #[getter]
    fn ordering(&self) -> &'static str {
        match self.gpu.words.ordering() {
            Ordering::Device => "device",
            Ordering::Host => "host",
        }
    }

    /// New storages of these lengths, their content undefined; for others to write to or not.
    ///
    /// Raises
    /// ------
    /// MemoryError
    ///     If the GPU has not so much left.
    fn allocate(
        &self,
        py: Python<'_>,
        lengths: Vec<u64>,
        is_for_writing: bool,
    ) -> PyResult<Vec<ServiceStorage>> {
        if lengths.iter().fold(0, |sum: u64, it| sum.saturating_add(*it)) <= SMALL {
            let arena = &self.gpu.arenas[usize::from(is_for_writing)];
            let made = py.detach(|| {
                with_room(|| {
                    let made = lengths.iter().map(|length| arena.allocate((*length).max(1)));
                    made.collect::<Result<Vec<_>, _>>()
                })
            });
            let made = made.map_err(|error| refused(&error))?;
            return Ok(made.into_iter().map(|storage| ServiceStorage { storage }).collect());
        }
        let mut end = 0_u64;
        let mut places = Vec::with_capacity(lengths.len());
        for length in lengths {
            places.push((end, length));
            end = end.saturating_add(length.max(1)).next_multiple_of(ALIGNMENT);
        }
        let device = self.gpu.context.device();
        let region = py.detach(|| with_room(|| Region::allocate_on(device, end)));
        let region = region.map_err(|error| refused(&error))?;
        let made = places.into_iter().map(|(offset, length)| {
            let storage = Storage::new(region.clone(), offset, length);
            storage.map(|storage| ServiceStorage { storage }).map_err(|error| failed(&error))
        });
        made.collect()
    }

    /// Ranges of memory, by address and length, that their allocator made to be shared, such as torch's
    /// expandable segments; `None` if one was not, or they lie in too many pieces for one message.
    #[expect(clippy::needless_pass_by_value, reason = "lists of Python arrive as vectors")]
    fn share(
        &self,
        py: Python<'_>,
        ranges: Vec<(u64, u64)>,
    ) -> PyResult<Option<Vec<ServiceStorage>>> {
        py.detach(|| {
            let mut pieces = Pieces { context: &self.gpu.context, known: BTreeMap::new() };
            let mut made = Vec::with_capacity(ranges.len());
            for (address, bytes) in &ranges {
                let Some(storage) = pieces.storage(*address, *bytes)? else { return Ok(None) };
                made.push(ServiceStorage { storage });
            }
            Ok(Some(made))
        })
    }

    /// What memory lies at an address, for so many bytes.
    ///
    /// Raises
    /// ------
    /// RuntimeError
    ///     If it was not made to be shared.
    fn backing(&self, py: Python<'_>, address: u64, bytes: u64) -> PyResult<ServiceBacking> {
        let backing = py.detach(|| Backing::of(&self.gpu.context, address, bytes));
        Ok(ServiceBacking { backing: backing.map_err(|error| failed(&error))? })
    }

    /// Ranges of `cudaMalloc`'s memory, by address and length, each with what keeps it for this process, to
    /// be lent where they are; `None` for each that can be lent better, or is another process's.
    ///
    /// Raises
    /// ------
    /// RuntimeError
    ///     If one is of a kind that cannot be lent so, or the driver can do it with none.
    fn share_volatile(
        &self,
        py: Python<'_>,
        ranges: Vec<(u64, u64, Py<PyAny>)>,
    ) -> PyResult<Vec<Option<ServiceStorage>>> {
        py.detach(|| {
            let context = &self.gpu.context;
            let one = |(address, bytes, keeper): (u64, u64, Py<PyAny>)| {
                let keeper = Keeper(Some(keeper));
                if usize::try_from(address).is_ok_and(addresses::is_volatile) {
                    return Ok(None);
                }
                match origin(context, address, bytes).map_err(|error| failed(&error))? {
                    Origin::Chunks => return Ok(None),
                    Origin::Allocated => {}
                    _ => return Err(PyRuntimeError::new_err(NOT_IN_PLACE)),
                }
                let region = Region::volatile(context, address, bytes, keeper);
                let region = region.map_err(|error| refused(&error))?;
                let storage = Storage::new(region, 0, bytes).map_err(|error| failed(&error))?;
                Ok(Some(ServiceStorage { storage }))
            };
            ranges.into_iter().map(one).collect()
        })
    }

    /// Queue copies of ranges, each from an address to a storage, after what is queued in a stream of
    /// torch; what is queued there from now on comes after them.
    #[expect(clippy::needless_pass_by_value, reason = "lists of Python arrive as vectors")]
    fn copy(
        &self,
        py: Python<'_>,
        ranges: Vec<(Bound<'_, ServiceStorage>, u64, u64)>,
        stream: usize,
    ) -> PyResult<()> {
        let ranges: Vec<(Storage, u64, u64)> = ranges
            .iter()
            .map(|(storage, from, bytes)| (storage.get().storage.clone(), *from, *bytes))
            .collect();
        let stream = sys::stream_of_torch(stream);
        py.detach(|| {
            let copies = &self.gpu.copies;
            copies.after(&stream).map_err(|error| failed(&error))?;
            for (storage, from, bytes) in &ranges {
                let mapping = self.gpu.open(storage)?;
                mapping.used_on(copies.stream()).map_err(|error| failed(&error))?;
                let to = storage.address_in(&mapping);
                let bytes = (*bytes).min(storage.bytes());
                copies.copy(to, *from, bytes).map_err(|error| failed(&error))?;
            }
            copies.before(&stream).map_err(|error| failed(&error))
        })
    }

    /// The bytes of storages, which lie on this GPU or on one whose memory it reaches, for a stream of torch:
    /// what is queued there from now on finds them.
    #[expect(clippy::needless_pass_by_value, reason = "lists of Python arrive as vectors")]
    fn memory(
        &self,
        py: Python<'_>,
        storages: Vec<Bound<'_, ServiceStorage>>,
        stream: usize,
    ) -> PyResult<Vec<Memory>> {
        let storages: Vec<Storage> = storages.iter().map(|it| it.get().storage.clone()).collect();
        py.detach(|| memory(&self.gpu, &storages, stream))
    }

    /// Say that storages are there when everything is done that is queued in a stream of torch.
    #[expect(clippy::needless_pass_by_value, reason = "lists of Python arrive as vectors")]
    fn publish(
        &self,
        py: Python<'_>,
        storages: Vec<Bound<'_, ServiceStorage>>,
        stream: usize,
    ) -> PyResult<()> {
        let storages: Vec<Storage> = storages.iter().map(|it| it.get().storage.clone()).collect();
        let stream = sys::stream_of_torch(stream);
        py.detach(|| self.gpu.publish(&storages, &stream))
    }

    /// Whether so many regions as storages lie in, together, travel in one message.
    #[staticmethod]
    #[expect(clippy::needless_pass_by_value, reason = "lists of Python arrive as vectors")]
    fn travels(storages: Vec<Bound<'_, ServiceStorage>>) -> bool {
        let regions = storages.iter().flat_map(|it| it.get().storage.regions());
        regions.map(Region::id).collect::<HashSet<_>>().len() <= PIECES_MAX
    }

    fn __repr__(&self) -> String {
        format!("ServiceGpu({}, {})", self.gpu.ordinal(), self.uuid())
    }
}

/// Memory that an allocator has put together from pieces, to be told from what lies there later.
#[pyclass(frozen, module = "shared_tensor._native")]
pub(crate) struct ServiceBacking {
    backing: Backing,
}

#[pymethods]
impl ServiceBacking {
    /// Whether it is still what lies at its address.
    fn is_there(&self, py: Python<'_>) -> bool {
        py.detach(|| self.backing.is_there())
    }
}

/// The number of the GPU, in this process, on which a storage is opened: that of its memory if it is
/// seen here, else `ordinal`, which then reads it over peer access.
pub(super) fn ordinal_for(storage: &Storage, ordinal: usize) -> PyResult<usize> {
    let driver = probe().map_err(|error| failed(&error))?;
    if let Place::Cuda(uuid) = storage.place()
        && let Ok(device) = driver.device(uuid)
    {
        return Ok(device.ordinal());
    }
    Ok(ordinal)
}

/// The bytes of storages, wherever they are. What is queued from now on in streams of torch finds them
/// there.
///
/// Parameters
/// ----------
/// storages : list of ServiceStorage
/// ordinal : int
///     The GPU that is to read those on one which this process does not see.
/// gpu_of : callable
///     Gives the `ServiceGpu` with a number.
/// stream_of : callable
///     Gives the handle of torch's current stream of a GPU with a number.
///
/// Raises
/// ------
/// RuntimeError
///     If there is no driver, or this process has no GPU that reads them.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "lists of Python arrive as vectors")]
pub(crate) fn service_memory(
    py: Python<'_>,
    storages: Vec<Bound<'_, ServiceStorage>>,
    ordinal: usize,
    gpu_of: &Bound<'_, PyAny>,
    stream_of: &Bound<'_, PyAny>,
) -> PyResult<Vec<Memory>> {
    let mut made: Vec<Option<Memory>> = Vec::with_capacity(storages.len());
    let mut on_gpus: Vec<(Place, Vec<usize>)> = Vec::new();
    for (index, it) in storages.iter().enumerate() {
        let place = it.get().storage.place();
        if place == Place::Cpu {
            made.push(Some(it.get().memory()?));
            continue;
        }
        made.push(None);
        match on_gpus.iter_mut().find(|(known, _)| *known == place) {
            Some((_, indices)) => indices.push(index),
            None => on_gpus.push((place, vec![index])),
        }
    }
    for (place, indices) in on_gpus {
        let theirs: Vec<Storage> =
            indices.iter().map(|index| storages[*index].get().storage.clone()).collect();
        let here = ordinal_for(&theirs[0], ordinal).map_err(|error| {
            PyRuntimeError::new_err(format!("memory on {place} cannot be opened here: {error}"))
        })?;
        let gpu = Arc::clone(&gpu_of.call1((here,))?.cast_into::<ServiceGpu>()?.get().gpu);
        let stream = stream_of.call1((here,))?.extract()?;
        let opened = py.detach(|| memory(&gpu, &theirs, stream)).map_err(|error| {
            // Not what has a meaning of its own, such as want of memory.
            if !error.get_type(py).is(py.get_type::<PyRuntimeError>()) {
                return error;
            }
            let text = error.value(py);
            let said = format!("memory on {place} cannot be read by cuda:{here}: {text}");
            PyRuntimeError::new_err(said)
        })?;
        for (index, memory) in indices.into_iter().zip(opened) {
            made[index] = Some(memory);
        }
    }
    Ok(made.into_iter().flatten().collect())
}

/// What is kept by tensors over storages of one mapping.
///
/// When the last of them is gone, kernels that read them may still be queued. Whoever lent them hears of it
/// when these are done: an allocator that has the memory uses it again.
struct Use {
    mapping: Option<Mapping>,
    storages: Vec<Storage>,
}

impl Drop for Use {
    fn drop(&mut self) {
        if let Some(mapping) = self.mapping.take() {
            mapping.let_go_when_done(std::mem::take(&mut self.storages));
        }
    }
}

/// The bytes of storages on a GPU. What is queued in `stream` from now on finds them there.
fn memory(gpu: &Gpu, storages: &[Storage], stream: usize) -> PyResult<Vec<Memory>> {
    let stream = sys::stream_of_torch(stream);
    let mut awaited = None;
    let mut made = Vec::with_capacity(storages.len());
    // Most of one object lies in few regions and waits for one word.
    for together in storages.chunk_by(|one, next| one.regions() == next.regions()) {
        if let Some(base) = together[0].region().and_then(Region::address_here) {
            for storage in together {
                gpu.await_ready(storage, &stream)?;
                made.push(own_memory(gpu, storage, base));
            }
            continue;
        }
        let mapping = gpu.open(&together[0])?;
        mapping.used_on(&stream).map_err(|error| failed(&error))?;
        for storage in together {
            if awaited != storage.ready() {
                gpu.await_ready(storage, &stream)?;
                awaited = storage.ready();
            }
        }
        let kept = Use { mapping: Some(mapping.clone()), storages: together.to_vec() };
        let kept = Arc::new(kept);
        let one = |storage| memory_in(gpu, storage, &mapping, Arc::clone(&kept));
        made.extend(together.iter().map(one));
    }
    Ok(made)
}

fn memory_in(gpu: &Gpu, storage: &Storage, mapping: &Mapping, kept: Arc<Use>) -> Memory {
    let known = addresses::note_on_device(storage, mapping);
    let ordinal = i32::try_from(gpu.ordinal()).unwrap_or(i32::MAX);
    let address = storage.address_in(mapping);
    let bytes = usize::try_from(storage.bytes()).unwrap_or(usize::MAX);
    Memory::over(place::Place::on_device(address, bytes, ordinal, (known, kept)))
}

/// What this process lends where it has it, and was passed back.
fn own_memory(gpu: &Gpu, storage: &Storage, base: u64) -> Memory {
    let ordinal = i32::try_from(gpu.ordinal()).unwrap_or(i32::MAX);
    let address = base + storage.offset();
    let bytes = usize::try_from(storage.bytes()).unwrap_or(usize::MAX);
    Memory::over(place::Place::on_device(address, bytes, ordinal, storage.clone()))
}

/// The identity of the GPU with a number of this process, if there is one.
pub(super) fn identity(index: u32) -> Option<Uuid> {
    let device = probe().ok()?.device_at(usize::try_from(index).ok()?).ok()?;
    Some(device.uuid())
}

/// The identity of the GPU with a number of this process, without a context; `None` where there is no
/// driver.
///
/// Raises
/// ------
/// RuntimeError
///     If there is a driver, and no such GPU.
#[pyfunction]
pub(crate) fn gpu_uuid(py: Python<'_>, ordinal: usize) -> PyResult<Option<String>> {
    py.detach(|| {
        if probe().is_err() {
            return Ok(None);
        }
        device(ordinal).map(|device| Some(device.uuid().to_string()))
    })
}

/// What this package called of the driver so far in this process, by name; starts nothing.
#[pyfunction]
pub(crate) fn driver_calls() -> BTreeMap<&'static str, u64> {
    let made = shared_tensor::service::cuda::driver_calls().into_iter();
    made.filter(|it| it.calls > 0).map(|it| (it.symbol, it.calls)).collect()
}

/// Each GPU that this process sees, its identity and its name, and the newest CUDA that the driver
/// supports; without a context.
///
/// Raises
/// ------
/// RuntimeError
///     If there is no driver; it says why.
#[pyfunction]
pub(crate) fn gpus(py: Python<'_>) -> PyResult<(String, Vec<(String, String)>)> {
    py.detach(|| {
        let driver = probe().map_err(|error| failed(&error))?;
        let devices = driver.devices().map_err(|error| failed(&error))?;
        let told = devices.iter().map(|it| (it.uuid().to_string(), it.name().to_owned()));
        Ok((driver.version().to_string(), told.collect()))
    })
}

/// Why CUDA is lost to this process on the GPU with a number, or on any, if it is; `None` also where the
/// service has used no GPU here, and where another thread is about to begin to. Waits for nothing.
#[pyfunction]
#[pyo3(signature = (ordinal = None))]
pub(crate) fn gpu_fault(py: Python<'_>, ordinal: Option<usize>) -> Option<String> {
    py.detach(|| {
        if !shared_tensor::service::cuda::is_loaded() {
            return None;
        }
        let gpus: Vec<Arc<Gpu>> = match GPUS.get_or_init(Mutex::default).try_lock() {
            Ok(gpus) => gpus.values().cloned().collect(),
            Err(TryLockError::Poisoned(gpus)) => gpus.into_inner().values().cloned().collect(),
            Err(TryLockError::WouldBlock) => Vec::new(),
        };
        for gpu in gpus.into_iter().filter(|gpu| ordinal.is_none_or(|it| it == gpu.ordinal())) {
            // Its own stream, which takes part in no capture.
            let asked = gpu.context.is_idle(gpu.copies.stream());
            let error = asked.as_ref().err().and_then(|error| error.as_call());
            if let Some(error) = error.filter(|error| error.is_sticky()) {
                return Some(advised(error));
            }
        }
        // What another GPU's was is not this one's.
        lost().filter(|_| ordinal.is_none()).map(advised)
    })
}
