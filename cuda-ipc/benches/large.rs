//! What opening costs from 1 to 120 GiB, in one chunk, in chunks of 1 GiB, and in the larger ones that the
//! service moves much into, as figures in the file that `ST_FIGURES` names; nothing without a device, unless `ST_GPU=require` says that there is one.
//!
//! The sizes are measured in turn, in rounds. Beside each is what the program `floor` takes for it, the
//! driver's calls alone, where that lies in the same folder.

use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::Write;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use cuda_ipc::{Access, Chunk, Context, Mapping, flush, probe, set_linger};

#[path = "../tests/it/calls.rs"]
#[allow(dead_code, reason = "others use more of it")]
mod calls;

use calls::Calls;

const GIB: u64 = 1 << 30;
const SIZES: [u64; 5] = [1, 4, 16, 64, 120];
/// More than as many GiB are moved into as many chunks.
const CHUNKS: u64 = 16;
const ROUNDS: usize = 3;
const SAMPLES: usize = 40;
/// What p50 may be at most, in microseconds.
const LIMIT: f64 = 5000.0;
/// For contexts and what the driver keeps.
const SPARE: u64 = 6 * GIB;
const PATIENCE: Duration = Duration::from_secs(120);

/// An object of so many chunks of so many bytes, and what was measured of it.
struct Row {
    count: u64,
    bytes: u64,
    rounds: Vec<Vec<f64>>,
    floors: Vec<f64>,
    timed: Calls,
}

impl Row {
    fn name(&self) -> String {
        let chunks = match self.count {
            1 => "1 chunk".to_owned(),
            _ if self.bytes == GIB => "chunks of 1 GiB".to_owned(),
            count => format!("{count} chunks"),
        };
        format!("open/{} GiB in {chunks}", self.count * self.bytes / GIB)
    }

    fn measure(&mut self, context: &Context) {
        let made = (0..self.count).map(|_| Chunk::create(context.device(), self.bytes));
        let chunks: Vec<Chunk> = made.collect::<Result<_, _>>().expect("memory");
        let all: Vec<&Chunk> = chunks.iter().collect();
        let mut took = Vec::with_capacity(SAMPLES);
        // The first is before the driver has what it keeps for the next.
        for sample in 0..=SAMPLES {
            let before = Calls::now();
            let begun = Instant::now();
            let mapping = Mapping::open(context, &all, Access::Read).expect("mapped");
            let taken = begun.elapsed();
            if sample > 0 {
                self.timed.add(&Calls::now().since(&before));
                took.push(taken.as_secs_f64() * 1e6);
            }
            drop(black_box(mapping));
            assert!(flush(Instant::now() + PATIENCE), "unmapped");
        }
        took.sort_by(f64::total_cmp);
        self.rounds.push(took);
        drop(chunks);
        self.floors.extend(floor(self.count, self.bytes));
    }

    fn figure(&self, device: &str) -> String {
        let mut middles: Vec<f64> = self.rounds.iter().map(|it| it[it.len() / 2]).collect();
        middles.sort_by(f64::total_cmp);
        let mut all: Vec<f64> = self.rounds.concat();
        all.sort_by(f64::total_cmp);
        let mut floors = self.floors.clone();
        floors.sort_by(f64::total_cmp);
        let floor = floors.get(floors.len() / 2).map_or("null".to_owned(), f64::to_string);
        format!(
            "{{\"name\": {:?}, \"unit\": \"us\", \"p50\": {}, \"p90\": {}, \"p99\": {}, \"samples\": {}, \
             \"ordering\": \"none\", \"devices\": [{device:?}], \"rounds\": {}, \"least\": {}, \
             \"greatest\": {}, \"floor\": {floor}, \"limit\": {LIMIT}}}\n",
            self.name(),
            all[all.len() / 2],
            all[all.len() * 9 / 10],
            all[all.len() * 99 / 100],
            all.len(),
            self.rounds.len(),
            middles[0],
            middles[middles.len() - 1],
        )
    }
}

/// The p50 of the driver's calls alone, in microseconds, if there is a program that measures it.
fn floor(count: u64, bytes: u64) -> Option<f64> {
    let program = std::env::current_exe().ok()?.with_file_name("floor");
    if !program.is_file() {
        return None;
    }
    let arguments = [SAMPLES as u64, count, bytes].map(|it| it.to_string());
    let said = Command::new(program).args(arguments).output().expect("it starts");
    assert!(said.status.success(), "floor: {}", String::from_utf8_lossy(&said.stderr));
    let text = String::from_utf8(said.stdout).expect("a number");
    Some(text.trim().parse().expect("a number"))
}

fn main() -> ExitCode {
    let device = probe().map_err(|error| error.to_string());
    let device = device.and_then(|it| it.device_at(0).map_err(|error| error.to_string()));
    let device = match device {
        Ok(device) => device,
        Err(reason) => {
            let is_required = std::env::var_os("ST_GPU").is_some_and(|it| it == "require");
            assert!(!is_required, "ST_GPU=require, and {reason}");
            return ExitCode::SUCCESS;
        }
    };
    let context = device.context().expect("a context");
    set_linger(Duration::ZERO);
    // A smaller device measures what it has room for.
    let room = device.memory_bytes().saturating_sub(SPARE);
    let sizes = SIZES.into_iter().filter(|size| size * GIB <= room);
    let forms = sizes.flat_map(|size| {
        let large = (size > CHUNKS).then_some((CHUNKS, size * GIB / CHUNKS));
        [(1, size * GIB), (size, GIB)].into_iter().chain(large)
    });
    let mut rows: Vec<Row> = forms
        .map(|(count, bytes)| Row {
            count,
            bytes,
            rounds: Vec::new(),
            floors: Vec::new(),
            timed: Calls::default(),
        })
        .collect();
    // 1 GiB is one chunk either way.
    rows.dedup_by_key(|row| (row.count, row.bytes));
    for _ in 0..ROUNDS {
        for row in &mut rows {
            row.measure(&context);
        }
    }
    let uuid = device.uuid().to_string();
    for row in &rows {
        calls::on(std::slice::from_ref(&device));
        calls::note("bench", &row.name(), &row.timed);
        let Some(path) = std::env::var_os("ST_FIGURES") else { continue };
        let file = OpenOptions::new().append(true).create(true).open(path);
        let written = file.and_then(|mut file| file.write_all(row.figure(&uuid).as_bytes()));
        written.expect("the file named by ST_FIGURES can be written");
    }
    ExitCode::SUCCESS
}
