//! inference-runtime
