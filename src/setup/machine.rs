//! The machine as far as it matters for speed: processor features, cores, memory.
//!
//! Read from `/proc` and the control group, so on other systems than Linux only cores and architecture are known.

use serde::Serialize;

use crate::processor::{Processor, line};

/// The machine's processor and memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Operating system, such as `linux`.
    pub system: String,
    /// Processor architecture, such as `x86_64`.
    pub architecture: String,
    /// The processor's own name; `None` where it cannot be read.
    pub processor: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory of the machine in bytes; `None` where it cannot be read.
    pub memory_bytes: Option<u64>,
    /// Memory that is free or can be freed, in bytes; `None` where it cannot be read.
    pub memory_available_bytes: Option<u64>,
    /// Memory limit of the container or service in bytes, if there is one.
    pub memory_limit_bytes: Option<u64>,
    /// Processor features that make the encoder or the index faster, and whether they are present.
    pub features: Vec<Feature>,
}

/// A processor feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// Its name for people.
    pub name: &'static str,
    /// Whether this processor has it.
    pub present: bool,
    /// What it makes faster.
    pub serves: &'static str,
}

/// Name for people, what it is good for, and the kernel's names of it (any of them will do).
type Known = (&'static str, &'static str, &'static [&'static str]);

const X86_64: [Known; 5] = [
    ("avx2", "all arithmetic", &["avx2"]),
    ("avx512", "all arithmetic", &["avx512f"]),
    ("vnni", "8-bit arithmetic", &["avx512_vnni", "avx_vnni"]),
    ("bf16", "16-bit encoding with openvino", &["avx512_bf16"]),
    ("amx", "the fastest encoding, with openvino", &["amx_bf16"]),
];
const AARCH64: [Known; 4] = [
    ("neon", "all arithmetic", &["asimd"]),
    ("dotprod", "8-bit arithmetic", &["asimddp"]),
    ("i8mm", "8-bit arithmetic", &["i8mm"]),
    ("bf16", "16-bit arithmetic", &["bf16"]),
];

impl Machine {
    /// Looks at this machine.
    pub(super) fn look() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let processor = Processor::look();
        let meminfo = read("/proc/meminfo");
        let limit = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
        let memory_bytes = kib_line(&meminfo, "MemTotal");
        Machine {
            system: std::env::consts::OS.to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            processor: processor.field("model name").map(str::to_owned),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes,
            memory_available_bytes: kib_line(&meminfo, "MemAvailable"),
            memory_limit_bytes: limit
                .iter()
                .find_map(|path| read(path).trim().parse().ok())
                // Version 1 groups without a limit hold a huge number instead of none.
                .filter(|&limit: &u64| memory_bytes.is_none_or(|all| limit < all)),
            features: features(std::env::consts::ARCH, &processor),
        }
    }

    /// Whether the processor has a feature of this name.
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|f| f.name == feature && f.present)
    }
}

fn features(architecture: &str, processor: &Processor) -> Vec<Feature> {
    let known: &[Known] = match architecture {
        "x86_64" => &X86_64,
        "aarch64" => &AARCH64,
        _ => &[],
    };
    // Where nothing is known, "absent" would be a lie.
    let Some(flags) = processor.flags() else { return Vec::new() };
    known
        .iter()
        .map(|&(name, serves, kernel)| Feature {
            name,
            serves,
            present: kernel.iter().any(|k| flags.contains(k)),
        })
        .collect()
}

fn kib_line(text: &str, label: &str) -> Option<u64> {
    let kib: u64 = line(text, label)?.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_come_from_the_kernels_list() {
        let cpu = Processor::told("model name\t: Some CPU\nflags\t\t: fpu avx2 avx_vnni avx512f_not\n");
        let found = features("x86_64", &cpu);
        let present: Vec<&str> = found.iter().filter(|f| f.present).map(|f| f.name).collect();
        assert_eq!(present, ["avx2", "vnni"]);
        assert_eq!(found.len(), X86_64.len());
        let arm = features("aarch64", &Processor::told("Features : fp asimd asimddp\n"));
        assert_eq!(arm.iter().filter(|f| f.present).count(), 2);
        assert!(features("x86_64", &Processor::told("")).is_empty(), "nothing known, nothing claimed");
        assert!(features("riscv64", &cpu).is_empty());
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let meminfo = "MemTotal:       24576000 kB\nMemAvailable:    1000 kB\n";
        assert_eq!(kib_line(meminfo, "MemTotal"), Some(24_576_000 * 1024));
        assert_eq!(kib_line(meminfo, "SwapTotal"), None);
    }

    #[test]
    fn this_machine_has_cores() {
        assert!(Machine::look().cores >= 1);
    }
}
