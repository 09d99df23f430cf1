//! The machine that a run was made on.

use std::fs;

/// Facts about this machine, by name, in the order they are shown.
pub fn describe() -> Vec<(&'static str, String)> {
    let system = rustix::system::uname();
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_else(unknown);
    vec![
        ("cpu", field("/proc/cpuinfo", "model name").unwrap_or_else(unknown)),
        ("cores", cpus.to_string()),
        ("memory", memory),
        ("kernel", system.release().to_string_lossy().into_owned()),
        ("thp", line("/sys/kernel/mm/transparent_hugepage/enabled")),
        ("shmem thp", line("/sys/kernel/mm/transparent_hugepage/shmem_enabled")),
        ("governor", line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        ("clock source", line("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        ("hypervisor", hypervisor()),
    ]
}

/// Load averages over 1, 5 and 15 minutes.
pub fn load() -> String {
    let text = line("/proc/loadavg");
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn hypervisor() -> String {
    let flags = field("/proc/cpuinfo", "flags").unwrap_or_default();
    if flags.split(' ').any(|flag| flag == "hypervisor") { "yes" } else { "no" }.to_owned()
}

fn line(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| unknown(), |text| text.trim().to_owned())
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

fn unknown() -> String {
    "not said".to_owned()
}
