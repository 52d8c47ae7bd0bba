//! Writes `crds/*.yaml` from the types (`make crds`).

fn main() -> std::io::Result<()> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, content) in crds::yaml::all() {
        std::fs::write(folder.join(name), content)?;
    }
    Ok(())
}
