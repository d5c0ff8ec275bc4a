//! Execution providers: which can be had, and which one a choice means.

use std::path::{Path, PathBuf};

use ort::{
    ep::{self, ExecutionProvider},
    memory::DeviceType,
    session::{Session, builder::SessionBuilder},
};

use super::{DeviceChoice, DeviceReport, RuntimeError, library::Loaded};

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
        std::arch::is_x86_feature_detected!("avx512bf16") || cpu_flag("amx_bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// AMX cannot be asked for with a stable macro yet; Linux tells it among the processor's flags.
#[cfg(target_arch = "x86_64")]
fn cpu_flag(flag: &str) -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| {
        text.lines().find(|l| l.starts_with("flags")).is_some_and(|l| l.split_whitespace().any(|f| f == flag))
    })
}

/// What a choice comes to on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provider {
    Cpu,
    OpenVino { bf16: bool },
    Cuda(u32),
}

/// # Errors
/// [`RuntimeError::DeviceUnavailable`] for an explicit choice that cannot be had.
pub(super) fn resolve(
    loaded: &mut Loaded,
    home: &Path,
    choice: DeviceChoice,
) -> Result<(Provider, DeviceReport), RuntimeError> {
    let unavailable = |reason: String| RuntimeError::DeviceUnavailable { device: choice.to_string(), reason };
    let report = |device: &str, reason: String| DeviceReport { device: device.to_owned(), reason };
    match choice {
        DeviceChoice::Cpu => Ok((Provider::Cpu, report("cpu (fp32)", "asked for".into()))),
        DeviceChoice::OpenVino => {
            register_openvino(loaded, home).map_err(unavailable)?;
            let bf16 = cpu_has_bf16();
            Ok((Provider::OpenVino { bf16 }, report(openvino_name(bf16), "asked for".into())))
        }
        DeviceChoice::Cuda(n) => {
            cuda_available(loaded).map_err(unavailable)?;
            Ok((Provider::Cuda(n), report(&format!("cuda:{n}"), "asked for".into())))
        }
        DeviceChoice::Auto => {
            let no_cuda = match cuda_available(loaded) {
                Ok(()) => {
                    return Ok((Provider::Cuda(0), report("cuda:0", "a CUDA provider is there".into())));
                }
                Err(reason) => reason,
            };
            tracing::debug!(reason = no_cuda, "no cuda");
            // Without bf16 arithmetic the plugin has nothing over the built-in provider.
            if !cpu_has_bf16() {
                return Ok((
                    Provider::Cpu,
                    report(
                        "cpu (fp32)",
                        "this processor has no bf16 arithmetic, and no CUDA device is there".into(),
                    ),
                ));
            }
            Ok(match register_openvino(loaded, home) {
                Ok(()) => (
                    Provider::OpenVino { bf16: true },
                    report(
                        openvino_name(true),
                        "this processor has bf16 arithmetic and the OpenVINO plugin is there".into(),
                    ),
                ),
                Err(reason) => (
                    Provider::Cpu,
                    report("cpu (fp32)", format!("the OpenVINO plugin cannot be used: {reason}")),
                ),
            })
        }
    }
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
        Provider::Cpu => {
            let devices = loaded.environment.devices().filter(|d| d.ep().is_ok_and(|ep| ep == CPU_EP));
            builder.with_devices(devices, None).map_err(|e| e.to_string())
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
        Provider::Cuda(n) => {
            let id = i32::try_from(n).map_err(|_| format!("there is no device {n}"))?;
            builder
                .with_execution_providers([ep::CUDA::default().with_device_id(id).build().error_on_failure()])
                .map_err(|e| e.to_string())
        }
    }
}
