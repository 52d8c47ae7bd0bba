//! `optimize IN.onnx OUT.onnx dense 'sparse[0:20]'`: hoists what the named inputs and columns determine alone.

use std::path::{Component, Path, PathBuf};

use rank::onnx::ExternalData;

/// Files beneath the model's folder.
struct Beside(PathBuf);

impl ExternalData for Beside {
    fn read(&self, location: &str, offset: u64, length: Option<u64>) -> Result<Vec<u8>, String> {
        if !Path::new(location)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(format!("{location:?} leads out of the model's folder"));
        }
        let content =
            std::fs::read(self.0.join(location)).map_err(|error| format!("{location:?}: {error}"))?;
        let start = usize::try_from(offset).map_err(|error| error.to_string())?;
        let end = match length {
            Some(length) => usize::try_from(length)
                .ok()
                .and_then(|length| start.checked_add(length)),
            None => Some(content.len()),
        };
        let part = end.and_then(|end| content.get(start..end));
        part.map(<[u8]>::to_vec)
            .ok_or_else(|| format!("{location:?} is too short"))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, target, once @ ..] = arguments.as_slice() else {
        return Err("usage: optimize IN.onnx OUT.onnx NAME|NAME[START:END,...] ...".into());
    };
    let once: Vec<&str> = once.iter().map(String::as_str).collect();
    let folder = Path::new(source).parent().unwrap_or(Path::new("")).to_owned();
    let rewritten = rank::optimize(
        &std::fs::read(source)?,
        &Beside(folder),
        &rank::parse_once(&once)?,
    )?;
    std::fs::write(target, rewritten)?;
    Ok(())
}
