//! What `/proc` says: processor time and memory of those who are measured, and what others took meanwhile.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::Context as _;

/// The unit of processor times in `/proc`, on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// The parent of all kernel threads.
const KTHREADD: i32 = 2;

/// One process.
#[derive(Debug, Clone, Copy)]
struct Task {
    parent: i32,
    /// Its own ticks and those of its children that have ended.
    ticks: u64,
}

/// How much processor time everything had taken at one moment.
#[derive(Debug)]
pub(crate) struct Moment {
    tasks: BTreeMap<i32, Task>,
    machine: Machine,
}

/// Ticks of all processors together.
#[derive(Debug, Clone, Copy)]
struct Machine {
    /// In processes and kernel threads, without interrupts.
    busy: u64,
    /// What the machine below gave to others.
    stolen: u64,
    all: u64,
}

/// What was taken between two moments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) server: Duration,
    pub(crate) database: Duration,
    /// The share of the machine that others took, from 0 to 1.
    pub(crate) others: f64,
}

impl Moment {
    pub(crate) fn now() -> anyhow::Result<Self> {
        let mut tasks = BTreeMap::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // It may have ended by now.
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            tasks.insert(pid, Task::parse(&stat).with_context(|| format!("not understood: {stat}"))?);
        }
        let stat = fs::read_to_string("/proc/stat")?;
        let machine = Machine::parse(&stat).context("/proc/stat is not understood")?;
        Ok(Self { tasks, machine })
    }

    /// What a server, a database and all others have taken since then; `us` is who measures, `flood` its child.
    pub(crate) fn since(&self, before: &Self, us: i32, server: i32, database: i32) -> Taken {
        let taken = |pids: &[i32]| self.family(pids).saturating_sub(before.family(pids));
        let ours = taken(&[us, server, database]);
        let kernel = taken(&[KTHREADD]);
        let all = self.all().saturating_sub(before.all());
        // By the sum of all processes that can be seen; and by what the machine says, for those that can't be.
        let seen = all.saturating_sub(ours + kernel);
        let machine = self.machine.busy.saturating_sub(before.machine.busy);
        let unseen = machine.saturating_sub(ours + kernel);
        let stolen = self.machine.stolen.saturating_sub(before.machine.stolen);
        let time = self.machine.all.saturating_sub(before.machine.all);
        Taken {
            server: duration(taken(&[server])),
            database: duration(taken(&[database])),
            others: share(seen.max(unseen) + stolen, time),
        }
    }

    /// Ticks of processes and their children. What a child took that has ended is in its parent's.
    fn family(&self, pids: &[i32]) -> u64 {
        let family = |(pid, task): &(&i32, &Task)| pids.contains(pid) || pids.contains(&task.parent);
        self.tasks.iter().filter(family).map(|(_, task)| task.ticks).sum()
    }

    fn all(&self) -> u64 {
        self.tasks.values().map(|task| task.ticks).sum()
    }
}

impl Task {
    /// Reads `/proc/PID/stat`: a name in brackets may hold anything, so that fields are counted from its end.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<_> = stat.rsplit_once(") ")?.1.split_whitespace().collect();
        // utime, stime, cutime, cstime: the 14th to the 17th field, of which two stand before.
        let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum::<Option<_>>()?;
        Some(Self { parent: fields.get(1)?.parse().ok()?, ticks })
    }
}

impl Machine {
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<u64> =
            stat.lines().next()?.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>().ok()?;
        // user, nice, system, idle, iowait, irq, softirq, steal; guests' time is in user's and nice's.
        let fields = fields.get(..8)?;
        Some(Self { busy: fields[..3].iter().sum(), stolen: fields[7], all: fields.iter().sum() })
    }
}

/// The most memory that a process and its children, each for itself, have had resident so far, in KiB.
pub(crate) fn peak_memory(server: i32) -> anyhow::Result<u64> {
    let mut peak = 0;
    let moment = Moment::now()?;
    for (pid, _) in moment.tasks.iter().filter(|(pid, task)| **pid == server || task.parent == server) {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        peak += field.context("no VmHWM")?.parse::<u64>()?;
    }
    Ok(peak)
}

fn duration(ticks: u64) -> Duration {
    TICK * u32::try_from(ticks).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "it is rounded anyway")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
