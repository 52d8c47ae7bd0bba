//! ONNX Runtime through `ort`, its shared library found at run time; any ONNX model, on CPU or CUDA.
//!
//! `ort` gives `Session::run` by exclusive reference only, because parts of ONNX Runtime's `Run` are not safe
//! from several threads. So each worker has a session of its own; they share the prepacked weights.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::environment::Environment;
use ort::ep::ExecutionProvider as _;
use ort::session::builder::{GraphOptimizationLevel, PrepackedWeights, SessionBuilder};
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Outlet, TensorElementType, TensorRef, ValueType};

use super::{
    Batch, Data, Datatype, Dim, Engine, Layout, Loader, Outputs, RunError, Signature, Tensor, TensorSpec,
};
use crate::failure::{LoadFailure, Reason};
use crate::model::config::Device;

/// ONNX Runtime's library, and what its sessions share.
struct Library {
    environment: Environment,
    prepacked: PrepackedWeights,
}

pub struct OnnxLoader {
    library: Library,
    model: PathBuf,
    device: Device,
    signature: Signature,
    /// The session that the signature is of, for the first worker.
    first: Option<Session>,
}

/// Where ONNX Runtime's library may be, in this order: ORT_DYLIB_PATH, beside the binary (or in `lib` beside
/// it), the system's library folders, and at last whatever the dynamic linker finds.
fn library_candidates() -> Vec<PathBuf> {
    const NAME: &str = "libonnxruntime.so";
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        return vec![path.into()];
    }
    let mut folders = Vec::new();
    if let Some(folder) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        folders.extend([folder.to_owned(), folder.join("lib"), folder.join("../lib")]);
    }
    folders.extend(
        [
            "/usr/local/lib",
            "/usr/lib/x86_64-linux-gnu",
            "/usr/lib",
            "/opt/onnxruntime/lib",
        ]
        .map(PathBuf::from),
    );
    let mut found: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| libraries_in(folder, NAME))
        .collect();
    found.push(NAME.into());
    found
}

/// `name` and `name.1.23.2`, highest version last in the folder first here.
fn libraries_in(folder: &Path, name: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let fits = |path: &PathBuf| {
        path.file_name()
            .and_then(|file| file.to_str())
            .is_some_and(|file| {
                file.strip_prefix(name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(fits).collect();
    paths.sort();
    paths.reverse();
    paths
}

impl Library {
    /// Fails when the image has none, or one too old.
    fn load() -> Result<Self, LoadFailure> {
        let mut errors = Vec::new();
        for path in library_candidates() {
            match ort::init_from(&path) {
                Ok(builder) => {
                    tracing::info!(library = %path.display(), "ONNX Runtime found");
                    let environment = builder
                        .with_name("pinnace")
                        .with_telemetry(false)
                        .with_logger(Arc::new(log))
                        .build();
                    let environment = environment
                        .map_err(|error| invalid(format!("ONNX Runtime does not start: {error}")))?;
                    return Ok(Self {
                        environment,
                        prepacked: PrepackedWeights::new(),
                    });
                }
                Err(error) => errors.push(error.to_string()),
            }
        }
        Err(invalid(format!(
            "ONNX Runtime 1.23 or newer was not found; set ORT_DYLIB_PATH to libonnxruntime.so ({})",
            errors.join("; ")
        )))
    }

    // `ort` hands the builder back inside its error, which makes that error large; this runs once a worker.
    #[allow(clippy::result_large_err)]
    fn builder(&self, device: Device) -> Result<SessionBuilder, LoadFailure> {
        let failed = |error: ort::Error<SessionBuilder>| invalid(format!("session options: {error}"));
        let mut builder = Session::builder(&self.environment)
            .map_err(|error| invalid(format!("session options: {error}")))?
            .with_optimization_level(GraphOptimizationLevel::All)
            .and_then(|builder| builder.with_intra_threads(1))
            .and_then(|builder| builder.with_inter_threads(1))
            .and_then(|builder| builder.with_intra_op_spinning(false))
            .and_then(|builder| builder.with_inter_op_spinning(false))
            .map_err(failed)?;
        if device == Device::Gpu {
            if !ort::ep::CUDA::is_available().unwrap_or(false) {
                return Err(no_gpu("ONNX Runtime's library has no CUDA provider"));
            }
            let cuda = ort::ep::CUDA::default().build().error_on_failure();
            builder = builder
                .with_execution_providers([cuda])
                .map_err(|error| no_gpu(&format!("the CUDA provider does not start: {error}")))?;
        } else {
            builder = builder.with_prepacked_weights(&self.prepacked).map_err(failed)?;
        }
        Ok(builder)
    }
}

impl OnnxLoader {
    /// Loads ONNX Runtime itself, and the model.
    pub fn open(model: &Path, device: Device) -> Result<Self, LoadFailure> {
        let library = Library::load()?;
        let session = session(&library, model, device)?;
        Ok(Self {
            signature: Signature {
                inputs: specs(session.inputs(), "input")?,
                outputs: specs(session.outputs(), "output")?,
            },
            first: Some(session),
            model: model.to_owned(),
            library,
            device,
        })
    }
}

fn session(library: &Library, model: &Path, device: Device) -> Result<Session, LoadFailure> {
    library.builder(device)?.commit_from_file(model).map_err(|error| {
        invalid(format!("ONNX Runtime does not load model.onnx: {error}; export the model again and check it with onnx.checker"))
    })
}

impl Loader for OnnxLoader {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn engine(&mut self, layout: &Layout) -> Result<Box<dyn Engine>, LoadFailure> {
        let session = match self.first.take() {
            Some(session) => session,
            None => session(&self.library, &self.model, self.device)?,
        };
        Ok(Box::new(OnnxEngine {
            names: self
                .signature
                .inputs
                .iter()
                .map(|spec| spec.name.clone())
                .collect(),
            layout: layout.clone(),
            session,
        }))
    }
}

struct OnnxEngine {
    session: Session,
    names: Vec<String>,
    layout: Layout,
}

impl Engine for OnnxEngine {
    fn run(&mut self, batch: Batch, outputs: &mut Outputs) -> Result<(), RunError> {
        // ONNX Runtime knows of no lists.
        let tensors = self.layout.repeated(batch.wide(&self.layout));
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(tensors.len());
        for (name, tensor) in self.names.iter().zip(&tensors) {
            let value = view(tensor).map_err(|error| RunError::Failed(format!("input {name:?}: {error}")))?;
            inputs.push((name, value));
        }
        let results = self.session.run(inputs).map_err(|error| match error.code() {
            ort::ErrorCode::InvalidArgument => RunError::Refused(error.to_string()),
            _ => RunError::Failed(error.to_string()),
        })?;
        outputs.tensors.clear();
        for (name, value) in &results {
            let tensor =
                copy(&value).map_err(|error| RunError::Failed(format!("output {name:?}: {error}")))?;
            outputs.tensors.push(tensor);
        }
        Ok(())
    }
}

/// A view of the tensor's own memory: inputs are not copied.
fn view(tensor: &Tensor) -> Result<SessionInputValue<'_>, ort::Error> {
    let shape = tensor.shape.clone();
    macro_rules! by_type {
        ($($variant:ident),*) => {
            match &tensor.data {
                $(Data::$variant(values) => TensorRef::from_array_view((shape, values.as_slice())).map(Into::into)),*
            }
        };
    }
    by_type!(Bool, U8, U16, U32, U64, I8, I16, I32, I64, F32, F64)
}

fn copy(value: &DynValue) -> Result<Tensor, ort::Error> {
    let datatype = value.dtype().tensor_type().and_then(datatype);
    macro_rules! by_type {
        ($($variant:ident $rust:ty),*) => {
            match datatype {
                $(Some(Datatype::$variant) => {
                    let (shape, values) = value.try_extract_tensor::<$rust>()?;
                    let shape = shape.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
                    Ok(Tensor { shape, data: Data::$variant(values.to_vec()) })
                })*
                None => Err(ort::Error::new(format!("unsupported type {}", value.dtype()))),
            }
        };
    }
    by_type!(Bool bool, U8 u8, U16 u16, U32 u32, U64 u64, I8 i8, I16 i16, I32 i32, I64 i64, F32 f32, F64 f64)
}

fn specs(outlets: &[Outlet], what: &str) -> Result<Vec<TensorSpec>, LoadFailure> {
    outlets.iter().map(|outlet| spec(outlet, what)).collect()
}

fn spec(outlet: &Outlet, what: &str) -> Result<TensorSpec, LoadFailure> {
    let name = outlet.name();
    let ValueType::Tensor {
        ty,
        shape,
        dimension_symbols,
    } = outlet.dtype()
    else {
        return Err(invalid(format!(
            "{what} {name:?} is {}, not a tensor; export the model without it",
            outlet.dtype()
        )));
    };
    let Some(datatype) = datatype(*ty) else {
        let known: Vec<&str> = Datatype::ALL.iter().map(|datatype| datatype.name()).collect();
        return Err(invalid(format!(
            "{what} {name:?} has element type {ty}, which is not served; cast it in the graph to one of {}",
            known.join(", ")
        )));
    };
    let dims =
        shape
            .iter()
            .zip(dimension_symbols.iter())
            .map(|(size, symbol)| match usize::try_from(*size) {
                Ok(size) => Dim::Fixed(size),
                Err(_) if symbol.is_empty() => Dim::Any,
                Err(_) => Dim::Named(symbol.clone()),
            });
    Ok(TensorSpec {
        name: name.to_owned(),
        datatype,
        dims: dims.collect(),
    })
}

fn datatype(element: TensorElementType) -> Option<Datatype> {
    Some(match element {
        TensorElementType::Bool => Datatype::Bool,
        TensorElementType::Uint8 => Datatype::U8,
        TensorElementType::Uint16 => Datatype::U16,
        TensorElementType::Uint32 => Datatype::U32,
        TensorElementType::Uint64 => Datatype::U64,
        TensorElementType::Int8 => Datatype::I8,
        TensorElementType::Int16 => Datatype::I16,
        TensorElementType::Int32 => Datatype::I32,
        TensorElementType::Int64 => Datatype::I64,
        TensorElementType::Float32 => Datatype::F32,
        TensorElementType::Float64 => Datatype::F64,
        _ => return None,
    })
}

/// ONNX Runtime's own log, below errors only at debug level: it is chatty, and may name inputs' values.
fn log(level: ort::logging::LogLevel, category: &str, _id: &str, _location: &str, message: &str) {
    use ort::logging::LogLevel;
    match level {
        LogLevel::Error | LogLevel::Fatal => tracing::debug!(category, message, "ONNX Runtime error"),
        _ => tracing::trace!(category, message, "ONNX Runtime"),
    }
}

fn invalid(message: String) -> LoadFailure {
    LoadFailure::permanent(Reason::ModelInvalid, message)
}

fn no_gpu(cause: &str) -> LoadFailure {
    LoadFailure::permanent(
        Reason::NoGpuProvider,
        format!(
            "{cause}; use an image with ONNX Runtime for CUDA, or say `device: cpu` in the model's config.yaml if \
             the model is to run on the CPU"
        ),
    )
}
