//! Execution providers: which can be had, and which one a choice means.

use std::path::{Path, PathBuf};

use ort::{
    ep::{self, ExecutionProvider},
    memory::DeviceType,
    session::{Session, builder::SessionBuilder},
};

use super::{DeviceChoice, DeviceReport, Precision, RuntimeError, layer8, library::Loaded, operators};
use crate::{onnx::Layout, processor::Processor};

/// Version of the plugin wheel that setup installs; also the name of its folder.
const OPENVINO_VERSION: &str = "1.8.1";
const OPENVINO_EP: &str = "OpenVINOExecutionProvider";
const CPU_EP: &str = "CPUExecutionProvider";

pub(super) fn openvino_path(home: &Path) -> PathBuf {
    home.join(format!("runtime/openvino-{OPENVINO_VERSION}/libonnxruntime_providers_openvino_plugin.so"))
}

/// Registers the OpenVINO plugin once per process; later calls answer what the first found.
pub(super) fn register_openvino(loaded: &mut Loaded, home: &Path) -> Result<(), String> {
    if let Some(known) = &loaded.openvino {
        return known.clone();
    }
    let path = openvino_path(home);
    let result = if !path.exists() {
        Err(format!("{} does not exist; `distilface setup` installs it on x86-64 Linux", path.display()))
    } else if let Err(e) = super::library::check_file(&path) {
        Err(e.to_string())
    } else {
        loaded.environment.register_ep_library("OpenVINO", &path).map_err(|e| e.to_string()).and_then(|()| {
            let usable = loaded.environment.devices().any(|d| is_openvino_cpu(&d));
            if usable { Ok(()) } else { Err("the plugin loads but offers no CPU device".to_owned()) }
        })
    };
    loaded.openvino = Some(result.clone());
    result
}

fn is_openvino_cpu(device: &ort::device::Device<'_>) -> bool {
    device.ep().is_ok_and(|ep| ep == OPENVINO_EP) && device.hardware_device().ty() == DeviceType::CPU
}

/// Whether the loaded library was built with CUDA and its provider's own libraries load.
pub(super) fn cuda_available(loaded: &Loaded) -> Result<(), String> {
    match ep::CUDA::is_available() {
        Ok(true) => {}
        Ok(false) => return Err("this build of ONNX Runtime has no CUDA provider; put the libraries of the onnxruntime-gpu wheel into one folder and point ORT_DYLIB_PATH at its libonnxruntime".to_owned()),
        Err(e) => return Err(e.to_string()),
    }
    let builder = Session::builder(&loaded.environment).map_err(|e| e.to_string())?;
    builder
        .with_execution_providers([ep::CUDA::default().build().error_on_failure()])
        .map(|_| ())
        .map_err(|e| format!("the CUDA provider does not load: {e}"))
}

/// Whether this processor multiplies bfloat16 in hardware: without it bf16 is slower than f32.
fn cpu_has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512bf16") || cpu_has_amx()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

fn cpu_has_amx() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        // It cannot be asked for with a stable macro yet.
        Processor::look().flags().is_some_and(|flags| flags.contains(&"amx_bf16"))
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// The provider that a choice resolves to on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provider {
    Cpu,
    /// The same, with operators of our own, which take texts one behind the other.
    CpuPacked,
    OpenVino {
        bf16: bool,
    },
    Cuda {
        device: u32,
        half: bool,
    },
}

impl Provider {
    pub(super) fn layout(self) -> Layout {
        match self {
            Provider::CpuPacked => Layout::Packed,
            Provider::Cuda { half: true, .. } => Layout::PaddedHalf,
            _ => Layout::Padded,
        }
    }
}

const FP32: &str = "cpu (fp32)";
const INT8: &str = "cpu (int8)";

/// `packable` says whether a packed graph can be written for the model.
///
/// # Errors
/// [`RuntimeError::DeviceUnavailable`] and [`RuntimeError::PrecisionUnavailable`] for an explicit choice that cannot be
/// had.
pub(super) fn resolve(
    loaded: &mut Loaded,
    home: &Path,
    choice: DeviceChoice,
    precision: Precision,
    packable: bool,
) -> Result<(Provider, DeviceReport), RuntimeError> {
    let unavailable = |reason: String| RuntimeError::DeviceUnavailable { device: choice.to_string(), reason };
    let refused = |reason: &str| RuntimeError::PrecisionUnavailable {
        precision: precision.name().to_owned(),
        device: choice.to_string(),
        reason: reason.to_owned(),
    };
    let report = |device: &str, reason: String| DeviceReport { device: device.to_owned(), reason };
    let asked = || "asked for".to_owned();
    let cuda = |device: u32, half: bool, reason: String| {
        let numbers = if half { "fp16" } else { "fp32" };
        (Provider::Cuda { device, half }, report(&format!("cuda:{device} ({numbers})"), reason))
    };
    match (choice, precision) {
        (DeviceChoice::Cpu | DeviceChoice::Auto, Precision::Int8)
        | (DeviceChoice::Cuda(_) | DeviceChoice::Auto, Precision::Fp16)
            if !packable =>
        {
            Err(refused(
                "the model's weights are in 8 bits already, by its own calibration; take fp32 or auto",
            ))
        }
        (DeviceChoice::Cpu | DeviceChoice::Auto, Precision::Int8) => {
            Ok((Provider::CpuPacked, report(INT8, asked())))
        }
        (_, Precision::Int8) => Err(refused("int8 runs on cpu alone")),
        (DeviceChoice::Cpu, Precision::Bf16) => {
            Err(refused("the built-in provider has no bf16; take device openvino, or precision int8"))
        }
        (DeviceChoice::Cuda(_), Precision::Bf16) => Err(refused("cuda runs in fp32 and fp16")),
        (DeviceChoice::Cpu, Precision::Fp16) => Err(refused(
            "the built-in provider would widen every number first; take precision int8, or device cuda",
        )),
        (DeviceChoice::OpenVino, Precision::Fp16) => {
            Err(refused("processors have bf16 instead: take that, or device cuda"))
        }
        (DeviceChoice::Auto, Precision::Fp16) => {
            cuda_available(loaded).map_err(|reason| refused(&reason))?;
            Ok(cuda(0, true, asked()))
        }
        (DeviceChoice::Cpu, Precision::Auto) if packable && layer8::is_fast() => Ok((
            Provider::CpuPacked,
            report(INT8, "asked for, and this processor multiplies 8-bit integers".into()),
        )),
        (DeviceChoice::Cpu, _) => Ok((Provider::Cpu, report(FP32, asked()))),
        (DeviceChoice::OpenVino, _) => {
            register_openvino(loaded, home).map_err(unavailable)?;
            let bf16 = match precision {
                Precision::Bf16 => true,
                Precision::Fp32 => false,
                _ => cpu_has_bf16(),
            };
            Ok((Provider::OpenVino { bf16 }, report(openvino_name(bf16), asked())))
        }
        (DeviceChoice::Cuda(n), _) => {
            cuda_available(loaded).map_err(unavailable)?;
            Ok(cuda(n, precision == Precision::Fp16, asked()))
        }
        (DeviceChoice::Auto, Precision::Bf16) => {
            register_openvino(loaded, home).map_err(|reason| refused(&reason))?;
            Ok((Provider::OpenVino { bf16: true }, report(openvino_name(true), asked())))
        }
        (DeviceChoice::Auto, _) => {
            match cuda_available(loaded) {
                Ok(()) => {
                    return Ok(cuda(0, false, "a CUDA provider is there".into()));
                }
                Err(reason) => tracing::debug!(reason, "no cuda"),
            }
            if precision == Precision::Fp32 {
                return Ok((
                    Provider::Cpu,
                    report(FP32, "fp32 was asked for, and no CUDA device is there".into()),
                ));
            }
            Ok(best_on_cpu(loaded, home, packable))
        }
    }
}

/// AMX multiplies bfloat16 faster than VNNI multiplies 8 bits, and nearer to full precision. Without either the plugin
/// still is ahead where bfloat16 is in the instruction set at all.
fn best_on_cpu(loaded: &mut Loaded, home: &Path, packable: bool) -> (Provider, DeviceReport) {
    let report =
        |device: &str, reason: &str| DeviceReport { device: device.to_owned(), reason: reason.to_owned() };
    let packed = packable && layer8::is_fast();
    if if packed { cpu_has_amx() } else { cpu_has_bf16() } {
        match register_openvino(loaded, home) {
            Ok(()) => {
                let reason = "this processor has bf16 arithmetic and the OpenVINO plugin is there";
                return (Provider::OpenVino { bf16: true }, report(openvino_name(true), reason));
            }
            Err(reason) if !packed => {
                return (
                    Provider::Cpu,
                    report(FP32, &format!("the OpenVINO plugin cannot be used: {reason}")),
                );
            }
            Err(reason) => tracing::debug!(reason, "no openvino"),
        }
    }
    if packed {
        return (Provider::CpuPacked, report(INT8, "this processor multiplies 8-bit integers"));
    }
    let reason = "this processor has neither bf16 nor 8-bit arithmetic, and no CUDA device is there";
    (Provider::Cpu, report(FP32, reason))
}

fn openvino_name(bf16: bool) -> &'static str {
    if bf16 { "openvino (bf16)" } else { "openvino (fp32)" }
}

/// Names the device explicitly, whatever it is: with a plugin registered, a session that names none may take it.
pub(super) fn apply(
    builder: SessionBuilder,
    loaded: &Loaded,
    provider: Provider,
    threads: usize,
) -> Result<SessionBuilder, String> {
    match provider {
        Provider::Cpu | Provider::CpuPacked => {
            let devices = loaded.environment.devices().filter(|d| d.ep().is_ok_and(|ep| ep == CPU_EP));
            let builder = builder.with_devices(devices, None).map_err(|e| e.to_string())?;
            if provider == Provider::Cpu {
                return Ok(builder);
            }
            let domain = operators::domain().map_err(|e| e.to_string())?;
            builder.with_operators(domain).map_err(|e| e.to_string())
        }
        Provider::OpenVino { bf16 } => {
            let precision = if bf16 { "bf16" } else { "f32" };
            let config = format!(
                r#"{{"CPU":{{"INFERENCE_PRECISION_HINT":"{precision}","INFERENCE_NUM_THREADS":{threads},"NUM_STREAMS":1}}}}"#
            );
            let options = [(format!("{OPENVINO_EP}.load_config"), config)];
            let devices = loaded.environment.devices().filter(is_openvino_cpu);
            builder.with_devices(devices, Some(&options)).map_err(|e| e.to_string())
        }
        Provider::Cuda { device, .. } => {
            let id = i32::try_from(device).map_err(|_| format!("there is no device {device}"))?;
            builder
                .with_execution_providers([ep::CUDA::default().with_device_id(id).build().error_on_failure()])
                .map_err(|e| e.to_string())
        }
    }
}
