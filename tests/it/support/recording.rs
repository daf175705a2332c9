//! What a process asked of the files in one folder, and what the disk may hold of it after a power cut.
//!
//! A write counts as on the disk once its file was synced after it, a file's name once its folder was. Of everything
//! else a cut leaves anything: a write, none of it, or some of its sectors; a name or none.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use fastrand::Rng;

use super::cluster::run;

/// The smallest part of a write that a disk does as one.
const SECTOR: usize = 512;

/// Builds the library that a process is to be started with.
pub fn build(folder: &Path) -> std::path::PathBuf {
    let library = folder.join("recorder.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/recorder.c");
    run(Command::new("cc").args(["-O2", "-Wall", "-shared", "-fPIC", "-o"]).arg(&library).arg(source));
    library
}

/// One call.
pub struct Call {
    /// When: nanoseconds of the system's monotonic clock.
    pub time: u64,
    kind: u8,
    path: String,
    offset: usize,
    bytes: Vec<u8>,
}

/// Reads the recorder's log; leaves out what no crash leaves, the index of SQLite's log.
pub fn read(log: &Path) -> Vec<Call> {
    const HEAD: usize = 22;
    let log = fs::read(log).unwrap();
    let (mut calls, mut rest) = (Vec::new(), &log[..]);
    while rest.len() >= HEAD {
        let (head, behind) = rest.split_at(HEAD);
        let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
        let length = u32::from_le_bytes(head[16..20].try_into().unwrap()) as usize;
        let (path, behind) = behind.split_at(usize::from(head[21]));
        // The process may have been killed in the middle of it.
        let Some((bytes, behind)) = behind.split_at_checked(length) else { break };
        let path = String::from_utf8(path.to_vec()).unwrap();
        if !path.ends_with("-shm") {
            let offset = usize::try_from(number(8)).unwrap();
            calls.push(Call { time: number(0), kind: head[20], path, offset, bytes: bytes.to_vec() });
        }
        rest = behind;
    }
    calls
}

/// Bytes of each of SQLite's logs that ended because another one was begun over it.
pub fn logs_begun_anew(calls: &[Call]) -> Vec<usize> {
    let (mut lengths, mut length) = (Vec::new(), 0);
    for call in calls.iter().filter(|call| call.kind == b'w' && call.path.ends_with("-wal")) {
        if call.offset == 0 && length > 0 {
            lengths.push(length);
            length = 0;
        }
        length = length.max(call.offset + call.bytes.len());
    }
    lengths
}

/// A file's content.
#[derive(Default, Clone)]
struct File {
    synced: Vec<u8>,
    /// Numbers of calls that are not synced.
    pending: Vec<usize>,
}

/// A disk on which calls are done one by one.
pub struct Disk<'a> {
    calls: &'a [Call],
    done: usize,
    files: Vec<File>,
    /// Which file a name stands for, for whoever asks now.
    names: BTreeMap<&'a str, usize>,
    /// What it stands for on the disk.
    synced_names: BTreeMap<&'a str, usize>,
    /// Names that have come or gone since the folder was synced.
    pending_names: Vec<(&'a str, Option<usize>)>,
}

/// What is left of a write.
enum Left {
    Nothing,
    All,
    Sectors,
}

impl<'a> Disk<'a> {
    pub fn new(calls: &'a [Call]) -> Self {
        Self {
            calls,
            done: 0,
            files: Vec::new(),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            pending_names: Vec::new(),
        }
    }

    /// Does so many calls in all.
    pub fn advance(&mut self, calls: usize) {
        while self.done < calls {
            let call = &self.calls[self.done];
            let path = call.path.as_str();
            match call.kind {
                b'c' => self.name(path),
                b'r' => {
                    self.names.remove(path);
                    self.pending_names.push((path, None));
                }
                b's' => self.sync(path),
                _ => {
                    let number = self.done;
                    self.file(path).pending.push(number);
                }
            }
            self.done += 1;
        }
    }

    fn name(&mut self, path: &'a str) {
        self.files.push(File::default());
        self.names.insert(path, self.files.len() - 1);
        self.pending_names.push((path, Some(self.files.len() - 1)));
    }

    /// A file that was there before the recording began counts as on the disk, and empty: none is.
    fn file(&mut self, path: &'a str) -> &mut File {
        let file = self.names[path];
        &mut self.files[file]
    }

    fn sync(&mut self, path: &'a str) {
        let Some(file) = self.names.get(path).copied() else {
            // The folder.
            for (name, file) in self.pending_names.drain(..) {
                match file {
                    Some(file) => self.synced_names.insert(name, file),
                    None => self.synced_names.remove(name),
                };
            }
            return;
        };
        let calls = self.calls;
        let file = &mut self.files[file];
        for number in file.pending.drain(..) {
            apply(&mut file.synced, &calls[number], &Left::All, &mut Rng::with_seed(0));
        }
    }

    /// What a cut now may leave, as files in a folder.
    pub fn cut(&self, rng: &mut Rng, folder: &Path) {
        // Now and then all or nothing of what is pending: what a cut leaves most often.
        let fate = rng.u8(..4);
        let left = |rng: &mut Rng| match (fate, rng.u8(..3)) {
            (0, _) | (2.., 0) => Left::Nothing,
            (1, _) | (2.., 1) => Left::All,
            _ => Left::Sectors,
        };
        let mut names = self.synced_names.clone();
        for (name, file) in &self.pending_names {
            match (left(rng), file) {
                (Left::Nothing, _) => None,
                (_, Some(file)) => names.insert(name, *file),
                (_, None) => names.remove(name),
            };
        }
        for (name, file) in names {
            let File { synced, pending } = &self.files[file];
            let mut content = synced.clone();
            for number in pending {
                let left = left(rng);
                apply(&mut content, &self.calls[*number], &left, rng);
            }
            fs::write(folder.join(Path::new(name).file_name().unwrap()), content).unwrap();
        }
    }
}

fn apply(content: &mut Vec<u8>, call: &Call, left: &Left, rng: &mut Rng) {
    if let Left::Nothing = left {
        return;
    }
    if call.kind == b't' {
        content.resize(call.offset, 0);
        return;
    }
    for (n, sector) in call.bytes.chunks(SECTOR).enumerate() {
        if matches!(left, Left::Sectors) && rng.bool() {
            continue;
        }
        let start = call.offset + n * SECTOR;
        if content.len() < start + sector.len() {
            content.resize(start + sector.len(), 0);
        }
        content[start..start + sector.len()].copy_from_slice(sector);
    }
}
