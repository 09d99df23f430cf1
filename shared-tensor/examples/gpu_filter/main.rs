//! Two processes and two streams on a GPU: a camera's frames are filtered by kernels of another process,
//! where they lie.
//!
//! `cargo run --release -p shared-tensor --example gpu_filter`
//!
//! Neither process waits for the GPU until the results are looked at.

#![expect(clippy::print_stdout, reason = "it shows what happens")]

#[expect(unsafe_code, reason = "kernels are launched by what the driver is told of them")]
mod sys;

use std::error::Error;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cuda_ipc::{Access, Chunk, Context, Copies, DriverError, Mapping};
use shared_tensor::stream::{
    Contents, OnFull, OpenOptions, ReaderOptions, Stamp, Stream, StreamOptions, Wait,
};
use shared_tensor::{DType, ErrorKind};

use sys::Scale;

const SHAPE: [u64; 2] = [480, 640];
const FLOATS: u32 = 480 * 640;
const FRAMES: u16 = 500;

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let context = match cuda_ipc::probe() {
        Ok(driver) => driver.device_at(0)?.context()?,
        Err(DriverError::Absent(reason)) => {
            println!("nothing to show: {reason}");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    match std::env::args().nth(1) {
        Some(camera) => filter(&context, &camera),
        None => produce(&context),
    }
}

/// How long anybody is waited for.
fn patience() -> Wait<'static> {
    Wait::until(Instant::now() + Duration::from_secs(60))
}

fn names(camera: &str) -> (String, String) {
    (camera.to_owned(), format!("{camera}-filtered"))
}

/// The camera: frame n has n in every pixel. And whoever looks at what becomes of them.
fn produce(context: &Context) -> Outcome {
    let (camera, filtered) = names(&format!("gpu-filter-{}", std::process::id()));
    let make = |name: &str| StreamOptions::new(DType::F32, SHAPE).create_on(context, name);
    let (frames, results) = (make(&camera)?, make(&filtered)?);
    println!("{FRAMES} frames of {}x{} floats on {}", SHAPE[0], SHAPE[1], context.device().name());
    let shown = show(context, &frames, &results, &camera);
    frames.unlink()?;
    results.unlink()?;
    shown
}

fn show(context: &Context, frames: &Stream, results: &Stream, camera: &str) -> Outcome {
    let kernel = Scale::load()?;
    let mut writer = frames.writer_on(context, &patience())?;
    let mut reader = results.reader_on(context, ReaderOptions::default(), &patience())?;
    let queue = context.stream()?;
    // What a lens would see: zeros.
    let (scene, copies) = (memory(context)?, Copies::new(context)?);
    copies.fill(scene.address(), 0, scene.bytes())?;
    copies.before(&queue)?;
    scene.used_on(&queue)?;
    let mut process = Command::new(std::env::current_exe()?).arg(camera).spawn()?;
    // It says so by its first frame, of nothing.
    reader.reader().wait(0, &patience())?;
    let begun = Instant::now();
    for number in 1..=FRAMES {
        let view = writer.view(&queue, Contents::Fresh, &patience())?;
        let places = (view.address(), scene.address());
        kernel.queue(&queue, places, (0.0, f32::from(number)), FLOATS)?;
        view.publish(&Stamp { frame_id: Some(number.into()), ..Stamp::default() })?;
    }
    println!("camera: published in {:.1?}, without waiting for the GPU", begun.elapsed());
    // Of frames that come faster than the filter is, it takes the newest: the last one is among them.
    let into = memory(context)?;
    into.used_on(copies.stream())?;
    let mut looked = 0;
    loop {
        let publication = reader.next_into(copies.stream(), into.address(), &patience())?;
        let mut bytes = vec![0; FLOATS as usize * 4];
        copies.download(&mut bytes, into.address())?;
        let wanted = f32::from(u16::try_from(publication.frame_id)?) * 2.0 + 1.0;
        if bytes.chunks_exact(4).any(|it| it != wanted.to_le_bytes()) {
            return Err(format!("frame {} is not as it should be", publication.frame_id).into());
        }
        looked += 1;
        if publication.frame_id == u64::from(FRAMES) {
            break;
        }
    }
    println!("{looked} filtered frames looked at: every value is right");
    process.wait()?;
    Ok(())
}

/// The other process: twice the frame, and one.
fn filter(context: &Context, camera: &str) -> Outcome {
    let (camera, filtered) = names(camera);
    let kernel = Scale::load()?;
    let mut reader = OpenOptions::new().open(&camera)?.reader_on(
        context,
        ReaderOptions::default(),
        &patience(),
    )?;
    let mut writer = OpenOptions::new().open(&filtered)?.writer_on(context, &patience())?;
    let queue = Arc::new(context.stream()?);
    let nothing = memory(context)?;
    let copies = Copies::new(context)?;
    copies.fill(nothing.address(), 0, nothing.bytes())?;
    copies.before(&queue)?;
    nothing.used_on(&queue)?;
    // 2 * 0 + 1, as frame 0.
    let view = writer.view(&queue, Contents::Fresh, &patience())?;
    kernel.queue(&queue, (view.address(), nothing.address()), (0.0, 1.0), FLOATS)?;
    view.publish(&Stamp { frame_id: Some(0), ..Stamp::default() })?;
    let mut filtered = 0;
    loop {
        match reader.reader().wait_new(&patience()) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Unlinked => break,
            Err(error) => return Err(error.into()),
        }
        // In place, both: the GPU reads one slot and fills the other.
        let frame = reader.lease(&queue, OnFull::Copy, &patience())?;
        let view = writer.view(&queue, Contents::Fresh, &patience())?;
        kernel.queue(&queue, (view.address(), frame.address()), (2.0, 1.0), FLOATS)?;
        let number = frame.publication().frame_id;
        view.publish(&Stamp { frame_id: Some(number), ..Stamp::default() })?;
        filtered += 1;
        if number == u64::from(FRAMES) {
            break;
        }
    }
    println!("filter: {filtered} frames, none copied");
    Ok(())
}

/// Memory of the device for one frame, mapped until what is queued is done.
fn memory(context: &Context) -> Result<Mapping, Box<dyn Error>> {
    let chunk = Chunk::create(context.device(), u64::from(FLOATS) * 4)?;
    Ok(Mapping::open(context, &[&chunk], Access::ReadWrite)?)
}
