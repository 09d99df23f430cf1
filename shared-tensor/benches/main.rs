//! What the service costs between two processes, and what a manifest costs to read.

use std::env;
use std::error::Error;
use std::hint::black_box;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use shared_tensor::DType;
use shared_tensor::manifest::{
    Limits, Manifest, ManifestBuilder, MappingKind, Scalar, SequenceKind, Sharing, Storage, Tensor,
    TensorClass, Value as Part,
};
use shared_tensor::service::{
    Address, Answer, Call, Client, Endpoint, Provider, Server, Tensor as Lent, Value,
};

const ROLE: &str = "SHARED_TENSOR_BENCH_SERVES";
/// Nobody touches it, so it takes no memory.
const LARGE_BYTES: u64 = 1 << 30;

fn main() {
    if let Some(socket) = env::var_os(ROLE) {
        serve(Path::new(&socket)).expect("a server");
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    calls(&mut criterion);
    tensors(&mut criterion);
    manifests(&mut criterion);
    criterion.final_summary();
}

/// The server, in a process of its own until its input ends.
fn serve(socket: &Path) -> Result<(), Box<dyn Error>> {
    let large = |call: &Call| Ok(Lent::zeros(call.arena(), DType::U8, [LARGE_BYTES])?);
    let provider = Provider::new()
        .with(Endpoint::new("nothing", |_: &Call| Ok(Value::None)).cache(false))
        .with(Endpoint::new("echo", |call: &Call| Ok(call.positional()[0].clone())).cache(false))
        .with(Endpoint::new("kept", |_: &Call| Ok(7)))
        .with(Endpoint::new("large", large))
        .with(Endpoint::new("managed", large).managed(true));
    let server = Server::options().serve(&Address::at(socket), &provider)?;
    writeln!(io::stdout(), "ready")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    server.stop(Duration::from_secs(10)).map(drop).map_err(Into::into)
}

/// A server in another process, and a client of it.
struct Served {
    child: Child,
    client: Client,
}

impl Served {
    fn start(name: &str) -> Self {
        let own = std::process::id();
        let socket: PathBuf = env::temp_dir().join(format!("shared-tensor-bench-{own}-{name}"));
        let mut child = Command::new(env::current_exe().expect("a path"))
            .env(ROLE, &socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let output = child.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut String::new()).expect("a word");
        Self { child, client: Client::at(Address::at(socket)) }
    }

    fn call(&self, endpoint: &str) -> Answer {
        self.client.call(endpoint, (), soon()).expect("an answer")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().expect("it ends with its input");
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn calls(criterion: &mut Criterion) {
    let served = Served::start("calls");
    let mut group = criterion.benchmark_group("call");
    group.bench_function("ping", |bencher| {
        bencher.iter(|| served.client.ping(soon()).expect("an answer"));
    });
    group.bench_function("uncached, nothing there and back", |bencher| {
        bencher.iter(|| served.call("nothing"));
    });
    group.bench_function("cached hit", |bencher| bencher.iter(|| served.call("kept")));
    for count in [1_i64, 1000] {
        let numbers = Value::List((0..count).map(Value::Int).collect());
        group.bench_function(
            BenchmarkId::new("uncached, a list there and back", count),
            |bencher| {
                bencher.iter_batched(
                    || [numbers.clone()],
                    |given| served.client.call("echo", given, soon()).expect("an answer"),
                    BatchSize::SmallInput,
                );
            },
        );
    }
    group.finish();
}

/// A tensor of a gigabyte, its first byte read: from the second call on its memory is here already.
fn tensors(criterion: &mut Criterion) {
    let served = Served::start("tensors");
    let first_byte = |answer: &Answer| {
        let tensor = answer.value.as_tensor().expect("a tensor");
        let view = tensor.storage().view().expect("memory");
        let mut byte = [0];
        view.bytes().expect("a region").read_into(0, &mut byte).expect("inside");
        byte
    };
    let mut group = criterion.benchmark_group("1 GiB tensor");
    for endpoint in ["large", "managed"] {
        let held = served.call(endpoint);
        first_byte(&held);
        group.bench_function(BenchmarkId::new("again, while one is held", endpoint), |bencher| {
            bencher.iter(|| first_byte(&served.call(endpoint)));
        });
        drop(held);
    }
    // Let go of each time: it is mapped anew, and what was lent is given back.
    group.bench_function(BenchmarkId::new("again, when all were let go of", "large"), |bencher| {
        bencher.iter(|| first_byte(&served.call("large")));
    });
    group.finish();
}

fn manifests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("manifest");
    for (modules, tensors) in [(10, 10), (450, 300)] {
        let bytes = manifest(modules, tensors);
        let limits = Limits::default();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let shape = format!("{modules} modules, {tensors} tensors");
        group.bench_function(BenchmarkId::new("decode and verify", &shape), |bencher| {
            bencher.iter(|| Manifest::decode(black_box(&bytes), &limits).expect("sound"));
        });
        let manifest = Manifest::decode(&bytes, &limits).expect("sound");
        group.bench_function(BenchmarkId::new("encode", &shape), |bencher| {
            bencher.iter(|| black_box(&manifest).encode());
        });
    }
    group.finish();
}

/// A list of modules of one class, of which the first have a weight each.
fn manifest(modules: u64, tensors: u64) -> Vec<u8> {
    let mut builder = ManifestBuilder::new();
    let class = builder.path("torch.nn.modules.linear", "Linear");
    let [training, parameters, size, weight] =
        ["training", "_parameters", "in_features", "weight"].map(|name| builder.string(name));
    let weight = builder.value(Part::Text(weight));
    let yes = builder.value(Part::Bool(true));
    let made: Vec<_> = (0..modules)
        .map(|index| {
            let pairs = if index < tensors {
                let storage = Storage { bytes: 4 * 64 * 64, sharing: Sharing::Shared };
                let tensor = Tensor {
                    storage: builder.storage(storage),
                    scalar: Scalar::F32,
                    shape: vec![64, 64],
                    strides: vec![64, 1],
                    offset: 0,
                    requires_grad: true,
                    class: TensorClass::Parameter,
                    attributes: None,
                };
                let id = builder.reserve_tensor();
                builder.fill_tensor(id, tensor);
                vec![(weight, builder.value(Part::Tensor(id)))]
            } else {
                Vec::new()
            };
            let pairs = builder.value(Part::Mapping(MappingKind::Dict, pairs));
            let number = builder.value(Part::Int(index.cast_signed()));
            let object = builder.reserve_object();
            let own = vec![(training, yes), (parameters, pairs), (size, number)];
            builder.fill_instance(object, class, own, Vec::new(), None);
            builder.value(Part::Object(object))
        })
        .collect();
    let root = builder.value(Part::Sequence(SequenceKind::List, made));
    builder.finish(root, &Limits::default()).expect("a sound object").manifest.encode()
}
