//! How long it takes from SIGKILL to the next owner, for owners of several sizes.
//!
//! `cargo run --release -p shm-lock --example takeover_gate -- 100 10M 400M core:400M 8G`
//!
//! The first argument says how often to kill, the others name owners by their resident memory;
//! `core:` makes them die by SIGABRT with core dumps enabled, `ns:` puts them into a pid namespace
//! of their own (which takes privileges). With arguments the program fails if the 99th percentile
//! of any owner but the `ns:` ones exceeds 10 ms: across namespaces only the end of the owner's
//! memory shows, whose delay is the kernel's. Without arguments it shows a few figures and judges
//! nothing.
//!
//! A process needs a processor to die on, and another one to notice: no mechanism can promise
//! anything on a machine with more runnable processes than processors. So every kill waits for a
//! moment at which nothing but this program runs, and one that is found to have had company
//! afterwards is counted apart, shown, and done again.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use shm_lock::{FutexLock, Membership, MemoryFile, Wait};

const ROLE: &str = "TAKEOVER_GATE_ROLE";
const GATE_US: u64 = 10_000;

type Fallible<T> = Result<T, Box<dyn Error>>;

fn main() -> Fallible<ExitCode> {
    if let Ok(role) = env::var(ROLE) {
        return play(&role);
    }
    let mut arguments = env::args().skip(1);
    let kills: usize = arguments.next().map_or(Ok(20), |count| count.parse())?;
    let mut owners = arguments.map(|name| Owner::parse(&name)).collect::<Fallible<Vec<_>>>()?;
    let judged = !owners.is_empty();
    if !judged {
        owners.push(Owner::parse("10M")?);
    }
    let place = Place::new()?;
    let mut waiter = Peer::spawn(Command::new(env::current_exe()?), "waiter", place.folder())?;
    show(["owner", "kills", "p50", "p90", "p99", "max", "us"])?;
    let mut slow = false;
    for owner in owners {
        let (mut alone, mut in_company) = (Vec::new(), Vec::new());
        while alone.len() < kills && in_company.len() < 4 * kills {
            let round = alone.len() + in_company.len();
            let (latency, was_alone) = owner.kill_one(&place, &mut waiter, round as u64)?;
            if was_alone { &mut alone } else { &mut in_company }.push(latency);
        }
        slow |= owner.report(&mut alone, "")? > GATE_US && owner.kind != Kind::InNamespace;
        if !in_company.is_empty() {
            owner.report(&mut in_company, "in company, not judged")?;
        }
    }
    if judged && slow {
        say(&format!("a 99th percentile exceeds {GATE_US} us"))?;
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

struct Owner {
    name: String,
    megabytes: usize,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Killed,
    DumpsCore,
    InNamespace,
}

impl Owner {
    fn parse(name: &str) -> Fallible<Self> {
        let (kind, size) = match name.split_once(':') {
            None => (Kind::Killed, name),
            Some(("core", size)) => (Kind::DumpsCore, size),
            Some(("ns", size)) => (Kind::InNamespace, size),
            Some((other, _)) => return Err(format!("owners are not of kind `{other}`").into()),
        };
        let megabytes = match size.split_at(size.len().saturating_sub(1)) {
            (number, "M") => number.parse::<usize>()?,
            (number, "G") => number.parse::<usize>()? * 1024,
            _ => return Err(format!("`{name}` is not a size such as 10M, 8G or core:400M").into()),
        };
        Ok(Self { name: name.to_owned(), megabytes, kind })
    }

    /// Shows the percentiles, and returns the 99th.
    fn report(&self, latencies: &mut [u64], remark: &str) -> io::Result<u64> {
        latencies.sort_unstable();
        let at = |percent: usize| {
            let rank = (latencies.len() * percent).div_ceil(100);
            rank.checked_sub(1).map_or(0, |rank| latencies[rank])
        };
        let figures = [latencies.len() as u64, at(50), at(90), at(99), at(100)];
        let [kills, p50, p90, p99, max] = figures.map(|figure| figure.to_string());
        show([&self.name, &kills, &p50, &p90, &p99, &max, remark])?;
        Ok(at(99))
    }

    /// From just before the kill to the moment at which the waiter owns the lock.
    fn kill_one(&self, place: &Place, waiter: &mut Peer, round: u64) -> Fallible<(u64, bool)> {
        let mut command = Command::new(env::current_exe()?);
        let mut role = format!("owner {}", self.megabytes);
        if self.kind == Kind::InNamespace {
            command = Command::new("unshare");
            command.arg("--pid").arg(env::current_exe()?);
            role = format!("parent {}", self.megabytes);
        }
        let mut victim = Peer::spawn(command, &role, place.folder())?;
        // Told as this process sees it.
        let pid: i32 = victim.hear()?.parse()?;
        victim.order("go")?;
        victim.hear()?;
        waiter.order("wait")?;
        place.wait_until_somebody_sleeps()?;
        let was_alone = wait_to_be_alone()?;
        // A waiter asks after the holder every 2 ms: every phase of that gets its turn.
        std::thread::sleep(Duration::from_micros(round * 617 % 2000));
        let pid = Pid::from_raw(pid).ok_or("a positive pid")?;
        let signal = if self.kind == Kind::DumpsCore { Signal::ABORT } else { Signal::KILL };
        let killed = now();
        kill_process(pid, signal)?;
        let owned: u64 = waiter.hear()?.parse()?;
        // This process, the new owner, and the old one that is still ending.
        let was_alone = was_alone && running()? <= 3;
        victim.child.wait()?;
        place.remove_cores()?;
        Ok(((owned - killed) / 1000, was_alone))
    }
}

/// Waits, two seconds at the longest, until no other process runs.
fn wait_to_be_alone() -> Fallible<bool> {
    let mut looks = 0;
    for _ in 0..400 {
        looks = if running()? == 1 { looks + 1 } else { 0 };
        if looks == 4 {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(false)
}

/// How many processes of the machine run, or want to, this one included.
fn running() -> Fallible<u32> {
    let stat = fs::read_to_string("/proc/stat")?;
    let running = stat.lines().find_map(|line| line.strip_prefix("procs_running "));
    Ok(running.ok_or("/proc/stat tells how many processes run")?.parse()?)
}

fn play(role: &str) -> Fallible<ExitCode> {
    let words: Vec<&str> = role.split(' ').collect();
    if let ["parent", megabytes] = words[..] {
        // The next child is the first one in the new namespace.
        let mut command = Command::new(env::current_exe()?);
        let mut owner = command.env(ROLE, format!("confined {megabytes}")).spawn()?;
        say(&owner.id().to_string())?;
        owner.wait()?;
        return Ok(ExitCode::SUCCESS);
    }
    if let [kind @ ("owner" | "confined"), megabytes] = words[..] {
        if kind == "owner" {
            say(&std::process::id().to_string())?;
        }
        io::stdin().read_line(&mut String::new())?;
        let Rlimit { maximum, .. } = getrlimit(Resource::Core);
        let lock = lock()?;
        setrlimit(Resource::Core, Rlimit { current: maximum, maximum })?;
        let ballast = vec![1_u8; megabytes.parse::<usize>()? << 20];
        let _guard = lock.acquire(&Wait::forever())?;
        say("held")?;
        loop {
            std::thread::park();
            std::hint::black_box(&ballast);
        }
    }
    let lock = lock()?;
    for order in io::stdin().lines() {
        order?;
        let guard = lock.acquire(&Wait::forever())?;
        let owned = now();
        assert!(guard.recovered().is_some(), "the owner was killed");
        drop(guard);
        say(&owned.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn lock() -> Fallible<FutexLock<MemoryFile>> {
    Ok(FutexLock::new(Membership::join(Arc::new(MemoryFile::open("lock")?))?))
}

/// Nanoseconds on the clock that all processes share.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

fn show([owner, kills, p50, p90, p99, max, remark]: [&str; 7]) -> io::Result<()> {
    say(&format!("{owner:>10}{kills:>7}{p50:>9}{p90:>9}{p99:>9}{max:>9}  {remark}"))
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

struct Peer {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    fn spawn(mut command: Command, role: &str, folder: &Path) -> Fallible<Self> {
        command.env(ROLE, role).current_dir(folder);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take().ok_or("a pipe")?;
        let answers = BufReader::new(child.stdout.take().ok_or("a pipe")?);
        Ok(Self { child, orders, answers })
    }

    fn order(&mut self, order: &str) -> io::Result<()> {
        writeln!(self.orders, "{order}")
    }

    fn hear(&mut self) -> Fallible<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the lock lives and cores are dumped: on a disk, not in memory, because of the cores.
struct Place(PathBuf);

impl Place {
    fn new() -> Fallible<Self> {
        let path = env::temp_dir().join(format!("takeover-gate-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn folder(&self) -> &Path {
        &self.0
    }

    /// The waiters' bit of the lock word, which is where the layout of memory files has it.
    fn wait_until_somebody_sleeps(&self) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let file = fs::File::open(self.0.join("lock"))?;
        let mut word = [0; 4];
        while word[0] & 1 == 0 {
            std::thread::sleep(Duration::from_millis(1));
            file.read_exact_at(&mut word, 64)?;
        }
        Ok(())
    }

    fn remove_cores(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core")) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Left behind only if something else removes it at the same time.
        let _ = fs::remove_dir_all(&self.0);
    }
}
