//! What the header of a GPU's stream says whose frames are in its file, and what nobody believes.

use cuda_ipc::{ChunkLabel, Uuid};

use crate::error::ErrorKind;
use crate::stream::layout::{Header, Layout, flags};
use crate::stream::place::{Place, Unshared};
use crate::tensor::{DType, Shape};

const GPU: Uuid = Uuid::from_bytes([7; 16]);

fn shape() -> Shape {
    Shape::new([3000]).unwrap()
}

fn layout(slots: usize, flags: u32, why: Unshared) -> crate::Result<Layout> {
    Layout::placed(DType::U8, shape(), slots, flags, Place::FileOf(GPU, why))
}

fn read(layout: &Layout, change: impl FnOnce(&mut Header)) -> Result<Layout, ErrorKind> {
    let mut header = layout.header();
    change(&mut header);
    Layout::from_header(&header, layout.total_bytes).map_err(|error| error.kind())
}

#[test]
fn it_is_that_of_a_stream_of_the_host_but_for_the_gpu() {
    let here = layout(4, 0, Unshared::NO_DESCRIPTORS).unwrap();
    let header = here.header();
    assert_eq!((header.device_mode, header.device_uuid, header.unshared), (2, [7; 16], 3));
    assert_eq!(header.chunk, [0; ChunkLabel::BYTES]);
    assert_eq!(read(&here, |_| {}), Ok(here.clone()));
    let host = Layout::new(DType::U8, shape(), 4, 0).unwrap();
    assert_eq!(Layout { place: Place::File, ..here.clone() }, host);
    assert_eq!((here.frames_in_file(), here.seats()), (host.frames_in_file(), None));
    assert_eq!((here.place.device(), here.label()), (Some(GPU), None));
    let told = here.place.unshared().unwrap().to_string();
    assert!(told.contains("no file descriptors"), "{told}");
}

#[test]
fn an_older_build_refuses_it_and_so_does_this_one_a_newer() {
    let here = layout(4, 0, Unshared::AS_WISHED).unwrap();
    // What builds before this place knew: 0 and 1. All say of others what this one says of 3.
    assert_eq!(read(&here, |header| header.device_mode = 3), Err(ErrorKind::Version));
    // A reason that came later is one all the same.
    let later = read(&here, |header| header.unshared = 4_000_000).unwrap();
    assert!(later.place.unshared().unwrap().to_string().contains("4000000"));
}

#[test]
fn a_header_that_contradicts_itself_is_refused() {
    let here = layout(4, 0, Unshared::NO_VIRTUAL_MEMORY).unwrap();
    let changes: [fn(&mut Header); 5] = [
        |header| header.chunk[3] = 1,
        |header| header.flags |= flags::MIRRORED,
        |header| header.reserved_tail[0] = 1,
        // Then it is nobody's, and has no reason.
        |header| header.device_mode = 0,
        |header| header.device_mode = 1,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert_eq!(read(&here, change), Err(ErrorKind::Corrupt), "change {number}");
    }
    let host = Layout::new(DType::U8, shape(), 4, 0).unwrap();
    assert_eq!(read(&host, |header| header.unshared = 1), Err(ErrorKind::Corrupt));
    assert_eq!(read(&host, |header| header.device_uuid = [7; 16]), Err(ErrorKind::Corrupt));
}

#[test]
fn rings_of_a_gpu_have_three_slots() {
    for slots in [0, 1, 2, 25] {
        let refused = layout(slots, 0, Unshared::AS_WISHED).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
        assert!(refused.to_string().contains("3 to 24 on a GPU"), "{refused}");
    }
    assert_eq!(layout(3, 0, Unshared::AS_WISHED).unwrap().leases_max(), 1);
}
