//! Memory of GPUs on the wire. No GPU is needed to name it.

use std::sync::Weak;

use cuda_ipc::{Chunk, ChunkId, ChunkLabel, Uuid};
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, memfd_create};

use super::messages::{RegionEntry, VOLATILE_ENTRY_BYTES, decode_all, encode};
use super::payload::{PackError, Packed, Packer, Unpacker};
use super::{DecodeError, probe};
use crate::service::custody::Table;
use crate::service::region::{Arena, Id, Place, Region, RegionError, Rights, volatile_tests};
use crate::service::server::adopted;
use crate::service::value::{Layout, Ready, Storage, Tensor, Value, may_follow};
use crate::tensor::DType;

const BYTES: u64 = 2 << 20;
const GPU: Uuid = Uuid::from_bytes([7; 16]);

/// A region that is said to be on a GPU. What its descriptor leads to shows when it is opened there.
fn on_gpu(id: u8, device: Uuid) -> Region {
    let label = ChunkLabel::new(ChunkId::from_bytes([id; 16]), device, BYTES);
    let descriptor = memfd_create("no memory of a GPU", MemfdFlags::CLOEXEC).unwrap();
    Region::of_chunk(Chunk::from_parts(label, descriptor))
}

fn tensor(storage: Storage, count: u64) -> Value {
    Tensor::new(storage, Layout::contiguous(DType::F32, [count])).unwrap().into()
}

fn packed(value: &Value) -> Packed {
    let mut packer = Packer::default();
    packer.value(value).unwrap();
    packer.finish(usize::MAX).unwrap()
}

fn read(bytes: &[u8], regions: &[Region]) -> Result<Value, DecodeError> {
    let mut unpacker = Unpacker::open(bytes, regions, None, None)?;
    let value = unpacker.value()?;
    unpacker.finish()?;
    Ok(value)
}

/// A tensor over two regions that waits for a word, and one of the host.
fn mixed() -> Value {
    let regions = vec![on_gpu(1, GPU), on_gpu(2, GPU)];
    let storage = Storage::spanning(regions, BYTES - 512, 1024).unwrap();
    let words = Region::allocate(4096).unwrap();
    storage.set_ready(Ready::new(&words, 3, 9).unwrap());
    let host = Tensor::from_slice(&Arena::new(), [2], &[1_f32, 2.0]).unwrap();
    Value::List(vec![tensor(storage, 256), host.into()])
}

#[test]
fn a_storage_comes_with_all_its_regions_and_its_word() {
    let value = mixed();
    let packed = packed(&value);
    assert_eq!(packed.regions.len(), 4, "two on the GPU, the words, one of the host");
    let again = read(&packed.bytes, &packed.regions).unwrap();
    assert_eq!(again, value);
    let storage = again.as_items().unwrap()[0].as_tensor().unwrap().storage();
    assert_eq!(storage.place(), Place::Cuda(GPU));
    assert_eq!((storage.regions().len(), storage.offset()), (2, BYTES - 512));
    let ready = storage.ready().unwrap();
    assert_eq!((ready.index(), ready.value()), (3, 9));
    let sizes = |place: Place| packed.charges.bytes_on(place.budget());
    assert_eq!((sizes(Place::Cuda(GPU)), sizes(Place::Cpu)), (1024, 8));
}

#[test]
fn the_host_does_not_look_at_it() {
    let storage = Storage::new(on_gpu(1, GPU), 0, 64).unwrap();
    assert!(matches!(storage.view(), Err(RegionError::OnDevice(Place::Cuda(GPU)))));
    assert!(matches!(storage.view_apart(), Err(RegionError::OnDevice(_))));
    let tensor = Tensor::new(storage, Layout::contiguous(DType::F32, [16])).unwrap();
    assert!(tensor.to_vec::<f32>().is_err());
}

#[test]
fn an_entry_says_on_which_gpu() {
    let region = on_gpu(5, GPU);
    let entry = RegionEntry::new(&region, Rights::Read, true);
    let bytes = encode(&entry);
    let again: RegionEntry = decode_all(&bytes).unwrap();
    assert!(again.check().is_ok());
    assert_eq!((again.place(), again.bytes), (Place::Cuda(GPU), BYTES));
    assert_eq!(bytes[bytes.len() - 18..], [[1].as_slice(), &[7; 16], &[1]].concat());
}

/// Memory that is lent where it is, as if another process had made it, or this one.
fn in_place(is_own: bool) -> Region {
    let handle = volatile_tests::handle(9, 512, BYTES);
    if is_own {
        volatile_tests::lent(handle)
    } else {
        Region::their_volatile(GPU, Id::random(), handle)
    }
}

#[test]
fn what_is_lent_where_it_is_comes_with_its_handle() {
    let region = in_place(false).made_by(Some(17));
    let value = tensor(Storage::new(region.clone(), 64, 64).unwrap(), 16);
    let packed = packed(&value);
    assert_eq!(read(&packed.bytes, &packed.regions).unwrap(), value);
    assert!(region.lend(Rights::Write).unwrap().is_none(), "no descriptor");
    assert!(matches!(region.lend(Rights::Read), Err(RegionError::Volatile)));
    let entry = RegionEntry::new(&region, Rights::Write, true);
    let bytes = encode(&entry);
    assert!(bytes.len() <= VOLATILE_ENTRY_BYTES);
    let again: RegionEntry = decode_all(&bytes).unwrap();
    assert!(again.check().is_ok());
    assert_eq!((again.place(), again.handle().as_ref()), (Place::Cuda(GPU), region.handle()));
    let came = Table::default().receive(&Weak::new(), 1, &[again], Vec::new()).unwrap();
    assert_eq!((came[0].id(), came[0].bytes(), came[0].start()), (region.id(), BYTES, 512));
    assert!(came[0].is_volatile() && !came[0].is_borrowed());
    assert!(region.may_go_to(Some(17)) && !region.may_go_to(Some(18)) && !region.may_go_to(None));
    assert!(on_gpu(1, GPU).may_go_to(None));
}

#[test]
fn what_is_lent_where_it_is_comes_back_to_its_maker_only() {
    let (own, theirs) = (in_place(true), in_place(false));
    let entry = |region| RegionEntry::new(region, Rights::Write, true);
    let back = adopted(&[entry(&own)], Vec::new()).unwrap();
    assert_eq!((back[0].address_here(), back[0].is_borrowed()), (Some(4096), true));
    assert_eq!(adopted(&[entry(&theirs)], Vec::new()), Err(DecodeError::Astray));
    let stale = entry(&own);
    drop((own, back));
    assert_eq!(adopted(&[stale], Vec::new()), Err(DecodeError::Astray), "lent no longer");
}

#[test]
fn handles_that_cannot_be_are_refused() {
    let region = in_place(false);
    let good = encode(&RegionEntry::new(&region, Rights::Write, true));
    let checked = |bytes: &[u8]| decode_all::<RegionEntry>(bytes).and_then(|it| it.check());
    assert_eq!(checked(&good), Ok(()));
    for flags in [0, 1, 2] {
        let altered = [&good[..good.len() - 1], &[flags]].concat();
        assert!(matches!(checked(&altered), Err(DecodeError::Region(_))), "{flags}");
    }
    let altered = [&good[..good.len() - 1], &[7]].concat();
    assert!(matches!(checked(&altered), Err(DecodeError::Code { .. })));
    // The last eight bytes of a handle's form are its length.
    let mut longer = good.clone();
    longer[good.len() - 2] = 1;
    assert!(matches!(checked(&longer), Err(DecodeError::Region(_))));
    assert_eq!(checked(&good[..good.len() - 2]), Err(DecodeError::Head));
    let entry: RegionEntry = decode_all(&good).unwrap();
    let descriptor = memfd_create("too many", MemfdFlags::CLOEXEC).unwrap();
    let received = Table::default().receive(&Weak::new(), 1, &[entry], vec![descriptor]);
    assert_eq!(received.unwrap_err(), DecodeError::Surplus);
}

#[test]
fn volatile_storages_span_nothing_and_many_travel() {
    let (near, theirs) = (on_gpu(1, GPU), in_place(false));
    assert!(!may_follow(&[near.clone(), theirs.clone()]) && !may_follow(&[theirs, near]));
    let regions: Vec<Region> = (0..300).map(|_| in_place(false)).collect();
    let one = |region: &Region| tensor(Storage::new(region.clone(), 0, 64).unwrap(), 16);
    let value = Value::List(regions.iter().map(one).collect());
    let mut packer = Packer::default();
    packer.value(&value).unwrap();
    assert!(matches!(packer.finish(300 * 100), Err(PackError::TooLarge { .. })), "heads count");
    assert_eq!(packed(&value).regions.len(), 300, "more than descriptors in a message");
    let on_gpus: Vec<Region> = (0..=250).map(|id| on_gpu(id, GPU)).collect();
    let value = Value::List(on_gpus.iter().map(one).collect());
    let mut packer = Packer::default();
    packer.value(&value).unwrap();
    assert!(matches!(packer.finish(usize::MAX), Err(PackError::TooManyRegions { found: 251 })));
}

#[test]
fn what_cannot_be_is_refused() {
    let far = on_gpu(3, Uuid::from_bytes([8; 16]));
    let (near, words) = (on_gpu(1, GPU), Region::allocate(4096).unwrap());
    let packed = packed(&tensor(Storage::new(near.clone(), 0, 1024).unwrap(), 256));
    // One storage: region 1 from 0 on, 1024 bytes, no further region, no word.
    assert_eq!(packed.bytes[..7], [1, 1, 0, 0x80, 8, 0, 0]);
    let altered = |head: &[u8]| [head, &packed.bytes[7..]].concat();
    let goes_on = altered(&[1, 1, 0, 0x80, 8, 1, 2, 0]);
    assert_eq!(read(&goes_on, &[near.clone(), far]), Err(DecodeError::Span));
    assert_eq!(read(&goes_on, &[near.clone(), words.clone()]), Err(DecodeError::Span));
    let waits = altered(&[1, 1, 0, 0x80, 8, 0, 2, 0, 1]);
    assert!(read(&waits, &[near.clone(), words.clone()]).is_ok());
    let beyond = altered(&[1, 1, 0, 0x80, 8, 0, 2, 0x80, 4, 1]);
    assert_eq!(read(&beyond, &[near.clone(), words]), Err(DecodeError::Ready), "word 512 of 512");
    assert_eq!(read(&waits, &[near.clone(), near.clone()]), Err(DecodeError::Ready));
    let outside = altered(&[1, 1, 0x80, 0x80, 0x80, 1, 0x80, 8, 0, 0]);
    assert!(matches!(read(&outside, &[near]), Err(DecodeError::Storage(_))));
}

proptest! {
    #[test]
    fn mutations_are_an_error_or_a_value(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut packed = packed(&mixed());
        let at = at.index(packed.bytes.len());
        packed.bytes[at] = to;
        // Whatever comes of it lies inside of what it names.
        if let Ok(Value::List(items)) = read(&packed.bytes, &packed.regions) {
            for tensor in items.iter().filter_map(Value::as_tensor) {
                let storage = tensor.storage();
                let length: u64 = storage.regions().iter().map(Region::bytes).sum();
                prop_assert!(storage.offset() + storage.bytes() <= length);
            }
        }
        probe::failure(&packed.bytes);
    }
}
