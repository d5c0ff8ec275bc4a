//! Which instructions this machine has: an [`Isa`] is a token that only detection makes.
//!
//! A function that is compiled for instructions beyond the build's target may be called only where the processor has
//! them. An [`Isa`] proves that it has those of [`Isa::set`]: outside this file none can be made but
//! [`Isa::PORTABLE`].
//!
//! For tests, the environment variable `DISTILFACE_SIMD` turns instructions off: it names the sets that may be used,
//! separated by commas (`portable`, `avx2`, `avx512`, `vnni`, `vnni_bf16`). Portable code is always there. Unset or
//! empty, all that the machine has is used. With `DISTILFACE_SIMD=avx2` or `portable`, every machine with AVX2 tests
//! the paths of processors without AVX-512.

use std::sync::LazyLock;

/// Names the sets of instructions that may be used.
const VARIABLE: &str = "DISTILFACE_SIMD";

/// Instructions that some function here is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    /// Those of the build's target.
    Portable,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512F.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-512 F, BW, VL and VNNI; bfloat16 by shifts.
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// The same with AVX512-BF16.
    #[cfg(target_arch = "x86_64")]
    VnniBf16,
}

impl Set {
    /// Every set, and the name it has in `DISTILFACE_SIMD`.
    pub(crate) const ALL: &[(Set, &str)] = &[
        (Set::Portable, "portable"),
        #[cfg(target_arch = "x86_64")]
        (Set::Avx2, "avx2"),
        #[cfg(target_arch = "x86_64")]
        (Set::Avx512, "avx512"),
        #[cfg(target_arch = "x86_64")]
        (Set::Vnni, "vnni"),
        #[cfg(target_arch = "x86_64")]
        (Set::VnniBf16, "vnni_bf16"),
    ];

    fn is_detected(self) -> bool {
        match self {
            Set::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            Set::Vnni => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Set::VnniBf16 => Set::Vnni.is_detected() && is_x86_feature_detected!("avx512bf16"),
        }
    }
}

/// A set of instructions that this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Isa(Set);

static AVAILABLE: LazyLock<Vec<Isa>> = LazyLock::new(|| {
    let named = std::env::var(VARIABLE).unwrap_or_default();
    let (allowed, unknown) = allowed(&named);
    if !unknown.is_empty() {
        tracing::warn!(variable = VARIABLE, unknown, "names no set of instructions; it is passed over");
    }
    let usable = allowed.into_iter().filter(|set| set.is_detected());
    usable.map(Isa).collect()
});

/// The sets that the variable's value allows, in the order of [`Set::ALL`], and what in it is no set's name.
fn allowed(value: &str) -> (Vec<Set>, String) {
    let names: Vec<&str> = value.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let sets = Set::ALL
        .iter()
        .filter(|(set, name)| names.is_empty() || *set == Set::Portable || names.contains(name));
    let unknown = names.iter().filter(|name| Set::ALL.iter().all(|(_, known)| known != *name));
    (sets.map(|(set, _)| *set).collect(), unknown.copied().collect::<Vec<_>>().join(", "))
}

impl Isa {
    /// What needs no detection.
    pub(crate) const PORTABLE: Isa = Isa(Set::Portable);

    /// Those of `among` that may be used, in that order.
    pub(crate) fn available(among: &[Set]) -> Vec<Isa> {
        let usable = |set: &Set| AVAILABLE.iter().copied().find(|isa| isa.0 == *set);
        among.iter().filter_map(usable).collect()
    }

    /// Instructions that are there.
    pub(crate) fn set(self) -> Set {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_turns_sets_off_and_never_portable_code() {
        let all: Vec<Set> = Set::ALL.iter().map(|(set, _)| *set).collect();
        assert_eq!(allowed(""), (all.clone(), String::new()));
        assert_eq!(allowed(" , "), (all, String::new()));
        assert_eq!(allowed("portable"), (vec![Set::Portable], String::new()));
        assert_eq!(allowed("sse9,portable, mmx"), (vec![Set::Portable], "sse9, mmx".to_owned()));
        #[cfg(target_arch = "x86_64")]
        assert_eq!(allowed("vnni, avx2"), (vec![Set::Portable, Set::Avx2, Set::Vnni], String::new()));
    }

    /// Tests of kernels run over every set that may be used here. Shown by `cargo test simd -- --nocapture`.
    #[test]
    fn sets_that_are_not_tested_here_are_named() {
        let here = Isa::available(&Set::ALL.iter().map(|(set, _)| *set).collect::<Vec<_>>());
        assert_eq!(here[0], Isa::PORTABLE);
        for (set, name) in Set::ALL {
            if here.contains(&Isa(*set)) {
                assert!(set.is_detected());
                println!("tested: {name}");
            } else {
                let why = if set.is_detected() { VARIABLE } else { "this machine lacks it" };
                println!("not tested: {name} ({why})");
            }
        }
    }
}
