//! What the locks cost: alone, against another process, handed over, and taken over from the dead.

use std::env;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use shm_lock::{
    Broadcast, FileLock, FutexLock, Guard, Membership, Memory, MemoryFile, Wait, process_token,
};

const ROLE: &str = "SHM_LOCK_BENCH_ROLE";

fn main() {
    if let Ok(role) = env::var(ROLE) {
        return play(&role);
    }
    let mut criterion = Criterion::default().configure_from_args();
    alone(&mut criterion);
    contended(&mut criterion);
    handed_over(&mut criterion);
    taken_over(&mut criterion);
    criterion.final_summary();
}

fn alone(criterion: &mut Criterion) {
    let place = Place::new();
    let mut group = criterion.benchmark_group("alone");
    let futex = Arc::new(lock(&place.lock()));
    let wait = Wait::forever();
    group.bench_function("futex lock and unlock", |bencher| {
        bencher.iter(|| drop(black_box(futex.acquire(&wait))));
    });
    group.bench_function("futex lock and unlock, owned", |bencher| {
        bencher.iter(|| drop(black_box(futex.acquire_owned(&wait))));
    });
    let file = FileLock::new(place.0.join("file"));
    group.bench_function("file lock and unlock", |bencher| {
        bencher.iter(|| drop(black_box(file.acquire(&wait))));
    });
    group.bench_function("who am I", |bencher| bencher.iter(|| futex.membership().me()));
    group.bench_function("process token", |bencher| bencher.iter(process_token));
    let word = Broadcast::new();
    group.bench_function("notify nobody", |bencher| bencher.iter(|| word.notify()));
    let other = lock(&place.lock());
    let me = other.membership().me().expect("joined");
    group.bench_function("ask after a living participant", |bencher| {
        bencher.iter(|| futex.membership().liveness(me.slot, me.id));
    });
    let memory = Arc::new(MemoryFile::anonymous().expect("a memfd can be made"));
    group.bench_function("join and leave", |bencher| {
        bencher.iter(|| Membership::join(Arc::clone(&memory)).expect("there is room"));
    });
    group.finish();
}

/// Two processes that do nothing but take and release.
fn contended(criterion: &mut Criterion) {
    let place = Place::new();
    let lock = lock(&place.lock());
    let mut group = criterion.benchmark_group("contended");
    let rival = Peer::start("hammer", &place.lock());
    let wait = Wait::forever();
    group.bench_function("futex lock and unlock against another process", |bencher| {
        bencher.iter(|| drop(black_box(lock.acquire(&wait))));
    });
    drop(rival);
    group.finish();
}

/// The lock goes to a process that sleeps on it, and back: two wake-ups.
fn handed_over(criterion: &mut Criterion) {
    let place = Place::new();
    let lock = lock(&place.lock());
    let mut group = criterion.benchmark_group("handed over");
    group.bench_function("futex, there and back", |bencher| {
        bencher.iter_custom(|rounds| {
            let guard = lock.acquire(&Wait::forever()).expect("the lock is free");
            let peer = Peer::start(&format!("take-turns {rounds}"), &place.lock());
            let started = take_turns(&lock, guard, rounds);
            let took = started.elapsed();
            drop(peer);
            took
        });
    });
    group.finish();
}

/// Hands the lock to a sleeper and sleeps until it is handed back, `rounds` times. The clock
/// starts when the other side sleeps for the first time.
fn take_turns<'a>(
    lock: &'a FutexLock<MemoryFile>,
    guard: Guard<'a, MemoryFile>,
    rounds: u64,
) -> Instant {
    let word = lock.membership().memory().lock_word();
    let me = lock.membership().me().expect("joined").id;
    let mut guard = Some(guard);
    while !word.has_waiters() {
        std::hint::spin_loop();
    }
    let started = Instant::now();
    for _ in 0..rounds {
        while !word.has_waiters() {
            std::hint::spin_loop();
        }
        drop(guard.take());
        while lock.holder().is_none_or(|holder| holder.id == me) {
            std::hint::spin_loop();
        }
        guard = lock.acquire(&Wait::forever()).ok();
    }
    started
}

fn taken_over(criterion: &mut Criterion) {
    let place = Place::new();
    let lock = lock(&place.lock());
    let mut group = criterion.benchmark_group("taken over");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    group.bench_function("futex, from SIGKILL to the next owner", |bencher| {
        bencher.iter_custom(|rounds| {
            let take_over = |_| {
                let mut victim = Peer::start("hold", &place.lock());
                victim.hear();
                let killed = Instant::now();
                victim.child.kill().expect("the victim lives");
                let guard = lock.acquire(&Wait::forever()).expect("the holder is dead");
                assert!(guard.recovered().is_some());
                killed.elapsed()
            };
            (0..rounds).map(take_over).sum()
        });
    });
    group.finish();
}

fn play(role: &str) {
    let path = PathBuf::from(env::args().next_back().expect("the path comes last"));
    let wait = Wait::forever();
    match role.split_once(' ').unwrap_or((role, "")) {
        ("hammer", _) => {
            let lock = lock(&path);
            say("ready");
            loop {
                drop(black_box(lock.acquire(&wait)));
            }
        }
        ("hold", _) => {
            let lock = lock(&path);
            let _guard = lock.acquire(&wait);
            say("held");
            loop {
                std::thread::park();
            }
        }
        ("take-turns", rounds) => {
            let lock = lock(&path);
            let guard = lock.acquire(&wait).expect("a wait for ever ends with the lock");
            take_turns(&lock, guard, rounds.parse().expect("a number of rounds"));
        }
        _ => panic!("`{role}` is no role"),
    }
}

fn lock(path: &Path) -> FutexLock<MemoryFile> {
    let memory = MemoryFile::open(path).expect("the memory can be opened");
    FutexLock::new(Membership::join(Arc::new(memory)).expect("there is room"))
}

fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("somebody listens");
}

struct Peer {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    fn start(role: &str, path: &Path) -> Self {
        let mut command = Command::new(env::current_exe().expect("this program has a path"));
        command.env(ROLE, role).arg(path).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a peer can be started");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, answers }
    }

    fn hear(&mut self) {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the peer answers");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let path = PathBuf::from(format!("/dev/shm/shm-lock-bench-{}", std::process::id()));
        // The places of one run follow each other.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("/dev/shm takes a folder");
        Self(path)
    }

    fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Left behind only if something else removes it at the same time.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
