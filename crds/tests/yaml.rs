//! The committed YAML is what the types say, here and in the chart that ships it.

use std::path::Path;

#[test]
fn the_committed_definitions_are_current() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, generated) in crds::yaml::all() {
        for folder in [here.to_owned(), here.join("../charts/pinnace-crds/files")] {
            let path = folder.join(name);
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == generated,
                "{} is stale: run make crds",
                path.display()
            );
        }
    }
}
