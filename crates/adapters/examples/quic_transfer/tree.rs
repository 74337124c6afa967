//! Files by their paths within a directory.

use std::io;
use std::path::{Component, Path, PathBuf};

use omniring::fs;

use crate::body::is_part;

/// A directory, out of which no path and no link leads.
pub struct Tree {
    /// Without links.
    root: PathBuf,
}

/// A file of a tree.
#[derive(Clone)]
pub struct Entry {
    /// With `/` between its parts.
    pub name: String,
    pub path: PathBuf,
    /// In bytes.
    pub len: u64,
}

impl Tree {
    pub fn of(directory: &Path) -> io::Result<Tree> {
        let root = directory.canonicalize().and_then(|root| match root.is_dir() {
            true => Ok(root),
            false => Err(io::ErrorKind::NotADirectory.into()),
        });
        let root = root.map_err(|error| at(directory, error))?;
        Ok(Tree { root })
    }

    /// The path of a file that is there.
    pub async fn find(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.resolve(self.root.join(relative(name)?)).await?;
        // A FIFO would have nobody write to it.
        match fs::metadata(&path).await?.is_file() {
            true => Ok(path),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file")),
        }
    }

    /// The path of a file that is there or not, with the directories above it.
    pub async fn place(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.root.join(relative(name)?);
        let (Some(directory), Some(file_name)) = (path.parent(), path.file_name()) else {
            return Err(no_path());
        };
        // What is there must not lead out before something is made in it.
        for above in directory.ancestors() {
            match self.resolve(above.to_owned()).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                found => {
                    found?;
                    break;
                }
            }
        }
        fs::create_dir_all(directory).await?;
        Ok(self.resolve(directory.to_owned()).await?.join(file_name))
    }

    /// The files at and below a path.
    pub async fn list(&self, name: &str) -> io::Result<Vec<Entry>> {
        let path = match name {
            "" => self.root.clone(),
            name => self.resolve(self.root.join(relative(name)?)).await?,
        };
        files(&path, name).await
    }

    /// Where a path leads, which is in here.
    async fn resolve(&self, path: PathBuf) -> io::Result<PathBuf> {
        let resolved = omniring::spawn_blocking(move || path.canonicalize());
        let path = resolved.await.map_err(|error| io::Error::other(error.to_string()))??;
        match path.starts_with(&self.root) {
            true => Ok(path),
            false => {
                let what = "a link there leads out of the directory";
                Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
            }
        }
    }
}

/// The files at and below `path`, which is called `name`, sorted. Links within directories are not
/// followed, and parts are left out.
pub async fn files(path: &Path, name: &str) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    let mut left = vec![(path.to_owned(), name.to_owned())];
    while let Some((path, name)) = left.pop() {
        let metadata = fs::metadata(&path).await.map_err(|error| at(&path, error))?;
        if metadata.is_file() {
            found.push(Entry { name, path, len: metadata.len() });
            continue;
        }
        let mut entries = fs::read_dir(&path).await.map_err(|error| at(&path, error))?;
        while let Some(entry) = entries.next_entry().await.map_err(|error| at(&path, error))? {
            let path = path.join(entry.file_name());
            let known = fs::symlink_metadata(&path).await.map_err(|error| at(&path, error))?;
            if is_part(&path) || !(known.is_file() || known.is_dir()) {
                continue;
            }
            let Some(last) = entry.file_name().to_str() else {
                let error = io::Error::new(io::ErrorKind::InvalidInput, "its name is not UTF-8");
                return Err(at(&path, error));
            };
            let name = if name.is_empty() { last.to_owned() } else { format!("{name}/{last}") };
            left.push((path, name));
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// An error with where it happened.
pub fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A path that leads downwards only.
fn relative(name: &str) -> io::Result<&Path> {
    let path = Path::new(name);
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    match is_plain && !name.is_empty() && !name.contains('\0') {
        true => Ok(path),
        false => Err(no_path()),
    }
}

fn no_path() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a path within the directory")
}
