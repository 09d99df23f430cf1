//! What streams cost whose frames are on a GPU: there and back between two processes, a write and a read
//! in one, and what another GPU reads and writes, as lines and as figures in the file that `ST_FIGURES`
//! names; nothing without a device, unless `ST_GPU=require` says that there is one.
//!
//! Everything is measured in turn, in rounds, beside what the program `floor-stream` takes for the same with
//! the driver alone, where that lies in the same folder. `--mps` measures what is between processes
//! under a daemon of MPS that it starts and ends; `--rounds=N`; `--small` tries whether it works.

#[path = "../../../cuda-ipc/tests/it/calls.rs"]
#[allow(dead_code, reason = "others use more of it")]
mod calls;
mod figures;
mod floor;
mod mps;
mod pair;
mod peers;
mod turn;

use std::process::ExitCode;

use cuda_ipc::{Context, probe};
use shared_tensor::stream::Wait;

use figures::Figures;

/// What is run.
#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: usize,
    /// How much less often than usual each is measured in a round.
    divisor: usize,
    is_small: bool,
    is_mps: bool,
}

impl Plan {
    fn read(arguments: impl Iterator<Item = String>) -> Self {
        let mut plan = Self { rounds: 5, divisor: 1, is_small: false, is_mps: false };
        for argument in arguments {
            match argument.split_once('=') {
                Some(("--rounds", number)) => plan.rounds = number.parse().expect("a number"),
                None if argument == "--mps" => plan.is_mps = true,
                None if argument == "--small" => {
                    plan = Self { rounds: 2, divisor: 20, is_small: true, ..plan };
                }
                // Those of criterion.
                _ => {}
            }
        }
        plan
    }

    fn samples(&self, usual: usize) -> usize {
        (usual / self.divisor).max(2)
    }

    /// What the names of rows end with.
    fn ending(&self) -> &'static str {
        if self.is_mps { ", MPS" } else { "" }
    }
}

const KB: usize = 1000;
const MB: usize = 1000 * KB;

fn main() -> ExitCode {
    let plan = Plan::read(std::env::args().skip(1));
    if turn::play() {
        return ExitCode::SUCCESS;
    }
    if plan.is_mps && !mps::is_there() {
        return mps::within();
    }
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
    let words = cuda_ipc::Words::create(1).expect("memory").attach(&context).expect("attached");
    let second = if plan.is_mps { None } else { peers::second(&context) };
    let mut figures = Figures::new(plan.rounds, words.ordering());
    for round in 0..plan.rounds {
        for bytes in [64 << 10, 4 * MB] {
            // Which of the two comes first changes.
            let floor = |figures: &mut Figures| turn::floor(&plan, figures, bytes);
            if round % 2 == 0 {
                floor(&mut figures);
            }
            turn::measure(&plan, &context, &mut figures, bytes);
            if round % 2 == 1 {
                floor(&mut figures);
            }
        }
        let sizes: &[usize] = match (plan.is_small, plan.is_mps) {
            (false, false) => &[40 * KB, 4 * MB, 400 * MB],
            (true, _) => &[40 * KB, 4 * MB],
            (_, true) => &[40 * KB],
        };
        for &bytes in sizes {
            pair::measure(&plan, &context, &mut figures, bytes);
        }
        if !plan.is_mps {
            pair::of_host(&plan, &context, &mut figures, 4 * MB);
            pair::of_calls(&plan, &context, &mut figures);
            if let Some(second) = &second {
                peers::measure(&plan, &context, second, &mut figures);
            }
        }
    }
    figures.end(&device);
    ExitCode::SUCCESS
}

/// Nothing here takes as long, unless it hangs.
fn patience() -> Wait<'static> {
    Wait::for_at_most(std::time::Duration::from_secs(30))
}

/// Memory of the device, as a private place for frames.
fn room(context: &Context, bytes: usize) -> cuda_ipc::Mapping {
    let chunk = cuda_ipc::Chunk::create(context.device(), bytes as u64).expect("memory");
    cuda_ipc::Mapping::open(context, &[&chunk], cuda_ipc::Access::ReadWrite).expect("mapped")
}

fn name_of(bytes: usize) -> String {
    if bytes == 64 << 10 {
        "64 KiB".to_owned()
    } else if bytes < MB {
        format!("{} KB", bytes / KB)
    } else {
        format!("{} MB", bytes / MB)
    }
}
