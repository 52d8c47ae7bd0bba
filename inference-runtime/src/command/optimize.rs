//! `optimize IN.onnx OUT.onnx --once INPUT`: hoists what the named inputs determine alone.

use anyhow::{Context, anyhow};

use crate::args::Optimize;
use crate::engine::external::Beneath;

/// Writes the rewritten model; gives back what was done.
pub fn optimize(args: &Optimize) -> anyhow::Result<String> {
    let (input, output) = (args.input.display(), args.output.display());
    let content = std::fs::read(&args.input).with_context(|| format!("read {input}"))?;
    let names: Vec<&str> = args.once.iter().map(String::as_str).collect();
    let once = rank::parse_once(&names).map_err(|error| anyhow!("--once: {error}"))?;
    let rewritten = rank::optimize(&content, &Beneath::of(&args.input), &once);
    let rewritten = rewritten.map_err(|error| anyhow!("{input} is not rewritten: {error}"))?;
    std::fs::write(&args.output, &rewritten).with_context(|| format!("write {output}"))?;
    let once = if names.is_empty() {
        "every input has one row a pair".to_owned()
    } else {
        format!("one row a request: {}", names.join(", "))
    };
    Ok(format!("{output}: {} bytes; {once}\n", rewritten.len()))
}
