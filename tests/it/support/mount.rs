//! Small file systems, to be filled or cut off.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::cluster::run;

/// A mounted file system of its own, gone with it.
pub struct Mount {
    folder: TempDir,
    image: Option<PathBuf>,
}

impl Mount {
    /// In memory, of so many bytes.
    pub fn in_memory(bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={bytes},mode=0777");
        run(as_root("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(inner(&folder)));
        Self { folder, image: None }
    }

    /// ext4 in a file of so many bytes, on a loop device.
    pub fn on_loop(bytes: u64) -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(bytes).unwrap();
        run(Command::new("/sbin/mkfs.ext4").args(["-q", "-F"]).arg(&image));
        let mount = Self { image: Some(image), folder };
        inner(&mount.folder);
        mount.attach();
        run(as_root("chmod").arg("0777").arg(mount.path()));
        mount
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// Mounts it again, so that its journal is replayed.
    pub fn attach(&self) {
        let image = self.image.as_ref().expect("it is on a loop device");
        run(as_root("mount").args(["-o", "loop"]).arg(image).arg(self.path()));
    }

    /// Unmounts it; nothing may use it any more.
    pub fn detach(&self) {
        run(as_root("umount").arg(self.path()));
    }

    /// Unmounts it if nothing uses it any more.
    pub fn try_detach(&self) -> bool {
        as_root("umount").arg(self.path()).stderr(std::process::Stdio::null()).status().unwrap().success()
    }

    /// As when the power goes: what the file system has not written by now it never will. Its own ioctl for that,
    /// without a last write of its log.
    pub fn cut(&self) {
        const SHUTDOWN: &str =
            "open(F, '<', $ARGV[0]) or die $!; $how = pack('L', 2); ioctl(F, 0x8004587d, $how) or die $!";
        run(as_root("perl").args(["-e", SHUTDOWN]).arg(self.path()));
    }

    /// As when the file system has met an error: it is read-only from now on, also for those who have files open.
    pub fn abort(&self) {
        run(as_root("mount").args(["-o", "remount,abort"]).arg(self.path()));
    }

    /// Takes all the room that there is.
    pub fn fill(&self) -> Filler {
        let path = self.path().join("filler");
        let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        for block in [1 << 16, 1 << 12] {
            while file.write_all(&vec![0; block]).is_ok() {}
        }
        Filler(path)
    }
}

/// What takes the room, until it is dropped.
pub struct Filler(PathBuf);

impl Filler {
    /// How much room it takes.
    pub fn bytes(&self) -> u64 {
        self.0.metadata().map_or(0, |file| file.blocks() * 512)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = as_root("umount").arg("--lazy").arg(self.path()).status();
    }
}

fn inner(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("mounted");
    std::fs::create_dir(&path).unwrap();
    open_to_all(folder.path());
    path
}

/// Postgres runs as another user.
fn open_to_all(folder: &Path) {
    run(Command::new("chmod").arg("0755").arg(folder));
}

/// Only root mounts.
fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}
