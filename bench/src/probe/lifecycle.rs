//! Creating and attaching.

use shared_tensor::stream::{Contents, OnFull, Stamp, Wait};

use super::sample::{Arguments, median, now_ns, pin, print};
use super::space;
use crate::Outcome;

const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;

/// `create SAMPLES`: a stream of 40 KB made, then opened after its maker has let go of it.
pub(super) fn small(given: &mut Arguments) -> Outcome<()> {
    let samples = given.next::<usize>()?;
    pin(0)?;
    let (mut create, mut attach) = (Vec::new(), Vec::new());
    for _ in 0..samples {
        let begun = now_ns();
        let stream = space::create("create", 40_000, 0)?;
        create.push((now_ns() - begun) as f64);
        drop(stream);
        let begun = now_ns();
        let stream = space::open("create")?;
        let reader = stream.reader();
        attach.push((now_ns() - begun) as f64);
        drop(reader);
        stream.unlink()?;
    }
    create.sort_by(f64::total_cmp);
    attach.sort_by(f64::total_cmp);
    print("create", median(&create));
    print("attach", median(&attach));
    Ok(())
}

/// `big BYTES`: a large stream made and populated, then opened and touched, on small and on huge
/// pages.
pub(super) fn big(given: &mut Arguments) -> Outcome<()> {
    let bytes = given.next::<usize>()?;
    let since = |begun: u64| (now_ns() - begun) as f64;
    let begun = now_ns();
    let stream = space::create("big", bytes, 0)?;
    print("create", since(begun));
    let mut writer = stream.writer()?;
    {
        let mut locked = writer.lock(&Wait::forever())?;
        let mut view = locked.view(Contents::Fresh)?;
        for page in (0..bytes).step_by(PAGE) {
            view.write_at(page, &[1])?;
        }
        view.publish(&Stamp::default())?;
    }
    print("first", since(begun));
    let ring = stream.info().total_bytes as usize;
    let mut is_populated = false;
    loop {
        let population = stream.info().population.ok_or("nothing is populated")?;
        if !is_populated && population.populated.obtained_bytes + (1 << 21) >= ring {
            print("populated", since(begun));
            is_populated = true;
        }
        if population.finished {
            break;
        }
        std::thread::sleep(std::time::Duration::from_micros(500));
    }
    print("huge", since(begun));
    let collapsed = stream.info().population.map_or(0, |it| it.collapsed.obtained_bytes);
    print("huge_percent", 100.0 * collapsed as f64 / ring as f64);
    drop((writer, stream));
    print("attach_huge", touch(bytes, HUGE_PAGE)?);
    space::open("big")?.unlink()?;

    // Without a writer's population the pages that the first frame touched are small.
    let stream = space::create("big", bytes, 0)?;
    let mut writer = stream.writer()?;
    writer.lock(&Wait::forever())?.clear()?;
    drop((writer, stream));
    print("attach", touch(bytes, PAGE)?);
    space::open("big")?.unlink()?;
    Ok(())
}

/// Opens the stream, leases its newest frame and touches every page of it, of the size that it has.
fn touch(bytes: usize, page: usize) -> Outcome<f64> {
    let begun = now_ns();
    let stream = space::open("big")?;
    let lease = stream.reader().lease(OnFull::Copy)?;
    let frame = lease.shared_bytes()?.ok_or("a copy was made")?;
    let mut byte = [0];
    for start in (0..bytes).step_by(page) {
        frame.read_into(start, &mut byte)?;
    }
    Ok((now_ns() - begun) as f64)
}
