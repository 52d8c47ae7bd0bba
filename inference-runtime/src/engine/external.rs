//! Data that a model keeps in files beside it: read beneath the model's folder, and nowhere else.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use rank::onnx::ExternalData;

/// Files beneath the folder of a model.
pub struct Beneath(PathBuf);

impl Beneath {
    /// The folder that `model` lies in.
    pub fn of(model: &Path) -> Self {
        Self(model.parent().unwrap_or(Path::new("")).to_owned())
    }

    fn open(&self, location: &str) -> Result<File, String> {
        let mut path = self.0.clone();
        for part in Path::new(location).components() {
            let Component::Normal(name) = part else {
                return Err("it leads out of the model's folder".to_owned());
            };
            path.push(name);
            let kind = std::fs::symlink_metadata(&path).map_err(|error| error.to_string())?;
            if kind.is_symlink() {
                return Err(format!("{} is a link; put the file itself there", path.display()));
            }
        }
        File::open(&path).map_err(|error| error.to_string())
    }

    fn part(&self, location: &str, offset: u64, length: Option<u64>) -> Result<Vec<u8>, String> {
        let mut file = self.open(location)?;
        let size = file.metadata().map_err(|error| error.to_string())?.len();
        let rest = size.checked_sub(offset);
        // The length comes from the model: compared with what is there before memory is reserved for it.
        let length = length.map_or(rest, |length| rest.filter(|rest| length <= *rest).map(|_| length));
        let length = length.ok_or_else(|| format!("it has {size} bytes, too few for what the model says"))?;
        let mut bytes = vec![0; usize::try_from(length).map_err(|error| error.to_string())?];
        file.seek(SeekFrom::Start(offset))
            .map_err(|error| error.to_string())?;
        file.read_exact(&mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }
}

impl ExternalData for Beneath {
    fn read(&self, location: &str, offset: u64, length: Option<u64>) -> Result<Vec<u8>, String> {
        self.part(location, offset, length)
            .map_err(|error| format!("its data in {location:?} is not read: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_beneath_is_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("weights"), b"0123456789").unwrap();
        std::os::unix::fs::symlink("weights", folder.path().join("link")).unwrap();
        let beneath = Beneath::of(&folder.path().join("model.onnx"));
        assert_eq!(beneath.read("weights", 2, Some(3)).unwrap(), b"234");
        assert_eq!(beneath.read("weights", 8, None).unwrap(), b"89");
        for (location, offset, length, named) in [
            ("link", 0, None, "is a link"),
            ("../weights", 0, None, "out of the model's folder"),
            ("/etc/passwd", 0, None, "out of the model's folder"),
            ("weights", 8, Some(3), "10 bytes"),
            ("weights", 11, None, "10 bytes"),
            ("weights", 0, Some(u64::MAX), "10 bytes"),
            ("none", 0, None, "none"),
        ] {
            let error = beneath.read(location, offset, length).unwrap_err();
            assert!(error.contains(named), "{location}: {error}");
        }
    }
}
