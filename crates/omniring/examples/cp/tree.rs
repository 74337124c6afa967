//! What there is to copy: walks directories, starts a task for each file, and reports what went wrong.

use std::cell::RefCell;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use indicatif::ProgressBar;
use omniring::fs::{self, FileType, Metadata};
use omniring::{TaskGroup, spawn_blocking};
use rustix::fs::{AtFlags, CWD, Timestamps, utimensat};

use crate::file::{Parts, copy_file, times_of};

/// How to copy.
pub struct Copy {
    pub files_max: usize,
    pub parts: Parts,
    pub bar: ProgressBar,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub files: u64,
    pub dirs: u64,
    pub links: u64,
    pub bytes: u64,
    /// Things that were not copied, or not as they are.
    pub failures: u64,
}

/// A directory that was made, or was there, and is to be as its original in the end.
struct Dir {
    to: PathBuf,
    as_was: Metadata,
}

/// An error, and what it is about.
fn at(path: &Path) -> impl Fn(io::Error) -> String {
    move |error| {
        // Some errors of the runtime's say more than the system's, which then is not in the text.
        let text = error.to_string();
        match omniring::raw_os_error(&error) {
            Some(errno) if !text.contains("os error") => {
                format!("{}: {text} (os error {errno})", path.display())
            }
            _ => format!("{}: {text}", path.display()),
        }
    }
}

impl Copy {
    /// Copies each to its place.
    pub async fn all(self, from_to: Vec<(PathBuf, PathBuf)>) -> Counts {
        let counts = Rc::new(RefCell::new(Counts::default()));
        let mut files = TaskGroup::new();
        let mut dirs = Vec::new();
        // Last in, first out: what a directory holds comes right after it.
        let mut left = Vec::new();
        for (from, to) in from_to.into_iter().rev() {
            match check(&from, &to).await {
                Ok(()) => left.push((from, to)),
                Err(error) => self.fail(&counts, error),
            }
        }
        while let Some((from, to)) = left.pop() {
            while files.len() >= self.files_max {
                join_one(&mut files).await;
            }
            let result = self.one(&from, &to, &mut left, &mut dirs, &files, &counts).await;
            if let Err(error) = result {
                self.fail(&counts, error);
            }
        }
        while !files.is_empty() {
            join_one(&mut files).await;
        }
        // The innermost first: what is put into a directory changes its time.
        for Dir { to, as_was } in dirs.into_iter().rev() {
            if let Err(error) = keep_dir(&to, as_was).await {
                self.fail(&counts, at(&to)(error));
            }
        }
        counts.take()
    }

    fn fail(&self, counts: &RefCell<Counts>, error: impl Display) {
        counts.borrow_mut().failures += 1;
        self.bar.suspend(|| eprintln!("cp: {error}"));
    }

    /// Copies a link, makes a directory and notes what is in it, or starts a file.
    async fn one(
        &self,
        from: &Path,
        to: &Path,
        left: &mut Vec<(PathBuf, PathBuf)>,
        dirs: &mut Vec<Dir>,
        files: &TaskGroup<()>,
        counts: &Rc<RefCell<Counts>>,
    ) -> Result<(), String> {
        let as_was = fs::symlink_metadata(from).await.map_err(at(from))?;
        match as_was.file_type() {
            FileType::File => {
                let (bar, parts) = (self.bar.clone(), self.parts);
                let (from, to, counts) = (from.to_owned(), to.to_owned(), counts.clone());
                bar.inc_length(as_was.len());
                files.spawn(async move {
                    match copy_file(&from, &to, &as_was, parts, &bar).await {
                        Ok(bytes) => {
                            let mut counts = counts.borrow_mut();
                            (counts.files, counts.bytes) = (counts.files + 1, counts.bytes + bytes);
                        }
                        Err((path, error)) => {
                            counts.borrow_mut().failures += 1;
                            bar.suspend(|| eprintln!("cp: {}", at(&path)(error)));
                        }
                    }
                });
            }
            FileType::Dir => {
                match fs::create_dir(to).await {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        let there = fs::metadata(to).await.map_err(at(to))?;
                        if !there.is_dir() {
                            return Err(format!("{}: not a directory", to.display()));
                        }
                    }
                    result => result.map_err(at(to))?,
                }
                let mut entries = fs::read_dir(from).await.map_err(at(from))?;
                while let Some(entry) = entries.next_entry().await.map_err(at(from))? {
                    left.push((entry.path().to_owned(), to.join(entry.file_name())));
                }
                counts.borrow_mut().dirs += 1;
                dirs.push(Dir { to: to.to_owned(), as_was });
            }
            FileType::Symlink => {
                copy_link(from, to, &as_was).await?;
                counts.borrow_mut().links += 1;
            }
            other => {
                return Err(format!("{}: not copied, for it is a {other:?}", from.display()));
            }
        }
        Ok(())
    }
}

/// Takes note of one that has ended; its panic goes on here.
async fn join_one(files: &mut TaskGroup<()>) {
    if let Some(Err(error)) = files.join_next().await {
        error.resume();
    }
}

/// Nothing is copied onto itself, and no directory into itself, which would never end.
async fn check(from: &Path, to: &Path) -> Result<(), String> {
    let as_is = fs::symlink_metadata(from).await.map_err(at(from))?;
    if as_is.is_dir() {
        let (source, target) = (from.to_owned(), to.to_owned());
        let inside = spawn_blocking(move || -> io::Result<bool> {
            let source = source.canonicalize()?;
            // What is not there yet is where its parent is.
            let there = target.ancestors().map(|path| match path.as_os_str().is_empty() {
                true => Path::new("."),
                false => path,
            });
            let real = there.map(Path::canonicalize).find_map(Result::ok);
            Ok(real.is_some_and(|real| real.starts_with(&source)))
        });
        let inside = inside.await.map_err(|error| error.to_string())?.map_err(at(from))?;
        if inside {
            let (from, to) = (from.display(), to.display());
            return Err(format!("{from}: not copied into itself, {to}"));
        }
    }
    Ok(())
}

async fn copy_link(from: &Path, to: &Path, as_was: &Metadata) -> Result<(), String> {
    let source = from.to_owned();
    let read = spawn_blocking(move || std::fs::read_link(source));
    let target = read.await.map_err(|error| error.to_string())?.map_err(at(from))?;
    if let Err(error) = fs::symlink(&target, to).await {
        let there = fs::symlink_metadata(to).await;
        let is_other = there.is_ok_and(|there| {
            there.is_symlink()
                && (there.device(), there.inode()) != (as_was.device(), as_was.inode())
        });
        if error.kind() != io::ErrorKind::AlreadyExists || !is_other {
            return Err(at(to)(error));
        }
        fs::remove_file(to).await.map_err(at(to))?;
        fs::symlink(&target, to).await.map_err(at(to))?;
    }
    let (link, times) = (to.to_owned(), times_of(as_was));
    let kept = spawn_blocking(move || set_link_times(&link, &times));
    kept.await.map_err(|error| error.to_string())?.map_err(at(to))
}

fn set_link_times(link: &Path, times: &Timestamps) -> io::Result<()> {
    Ok(utimensat(CWD, link, times, AtFlags::SYMLINK_NOFOLLOW)?)
}

async fn keep_dir(to: &Path, as_was: Metadata) -> io::Result<()> {
    let dir = fs::File::open(to).await?;
    crate::file::keep(dir, &as_was).await
}
