//! Backups that a manager writes by itself, on a schedule.
//!
//! ```text
//!   due ─▶ state (linearizable) ─▶ sealed ─▶ NAME.unverified ─▶ read back, opened ─▶ NAME ─▶ the oldest go
//! ```
//!
//! A file that has its final name has been read back from the device and opened with the passphrase.
//! Every manager that is told to writes its own, in its own turn, so a leader that dies stops none.
//! One at a time; a failure is told and tried again. When is `plan`'s business.

mod plan;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::sync::watch;

use super::settings::BackupSchedule;
use crate::api::{Backups, LocalState};
use crate::domain::secret::Sensitive;
use crate::domain::{NodeId, Timestamp};
use crate::env::{Env, Scope, files};
use crate::raft::{Store, archive};
use crate::state::View;
pub(super) use plan::overdue;
use plan::{Next, Slots};

/// How long the state may be waited for.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Room that is left on the file system beside a backup: nothing else is to fail because of it.
const ROOM: u64 = 64 << 20;

/// Writes backups until the scope ends.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) schedule: BackupSchedule,
    pub(super) node: NodeId,
    pub(super) env: Env,
    pub(super) store: Store,
    pub(super) scope: Scope,
    /// Where others see how it goes.
    pub(super) local: watch::Sender<LocalState>,
}

impl Keeper {
    /// Runs for ever.
    pub(super) async fn run(self) {
        let BackupSchedule { every, directory, keep, .. } = &self.schedule;
        tracing::info!(?every, directory = %directory.display(), keep, "backups are scheduled");
        let slots = Slots::new(*every, self.node);
        let mut last = newest(directory, self.node);
        let mut failures: u32 = 0;
        let (every, since) = (*every, self.env.clock.now());
        self.tell(|it| {
            *it =
                Backups { directory: directory.clone(), every, since, last, ..Backups::default() };
        });
        loop {
            if self.store.view().cluster.is_none() {
                self.env.clock.sleep(Duration::from_secs(1)).await; // it has yet to hear of it
                continue;
            }
            let now = self.env.clock.now();
            let pause = match slots.next(now, last) {
                Next::Wait(pause, due) => {
                    self.tell(|it| it.next = Some(due));
                    pause
                }
                Next::Now => match self.make(now).await {
                    Ok((path, bytes)) => {
                        tracing::info!(path = %path.display(), bytes, "backup written and verified");
                        (last, failures) = (Some(now), 0);
                        self.tell(|it| (it.last, it.failure) = (last, None));
                        continue;
                    }
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        let why = format!("{error:#}");
                        tracing::error!(error = why, failures, "no backup was made");
                        self.tell(|it| it.failure = Some((now, why)));
                        slots.retry(failures)
                    }
                },
            };
            self.env.clock.sleep(pause).await;
        }
    }

    fn tell(&self, change: impl FnOnce(&mut Backups)) {
        self.local.send_modify(|local| change(local.backups.get_or_insert_default()));
    }

    /// Makes one, and removes what there is too much of.
    async fn make(&self, now: Timestamp) -> anyhow::Result<(PathBuf, u64)> {
        let view = self.store.read_index(READ_LIMIT).await.context("the state cannot be read")?;
        let (schedule, env, node) = (self.schedule.clone(), self.env.clone(), self.node);
        let work = move || write(&schedule, &env, node, &view, now);
        self.scope.blocking(work).await.context("the work on a backup panicked")?
    }
}

/// When the newest verified backup of a node was made; `None` where there is none.
fn newest(directory: &Path, node: NodeId) -> Option<Timestamp> {
    let found = files::list(directory, &plan::prefix(node)).ok()?;
    let path = plan::verified(found).pop()?;
    Some(archive::summary(&std::fs::read(path).ok()?).ok()?.created)
}

fn write(
    schedule: &BackupSchedule,
    env: &Env,
    node: NodeId,
    view: &View,
    now: Timestamp,
) -> anyhow::Result<(PathBuf, u64)> {
    let BackupSchedule { directory, passphrase_file, keep, .. } = schedule;
    let place = directory.display();
    ensure!(
        directory.is_dir(),
        "the directory of backups, {place}, is not there: make it (mkdir -m 700 {place}), or mount it"
    );
    let secret = passphrase(passphrase_file)?;
    let prefix = plan::prefix(node);
    for left in files::list(directory, &prefix)? {
        if left.to_string_lossy().contains(plan::DRAFT) {
            files::remove(&left)?; // by a crash
        }
    }
    let (_, content) = archive::write(view, secret.expose(), now, &*env.entropy)?;
    let bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
    let room = files::free_space(directory)?;
    ensure!(
        room >= bytes.saturating_add(ROOM),
        "{place} has {} MiB left, and {} are needed: make room, or keep fewer backups",
        room >> 20,
        (bytes.saturating_add(ROOM) >> 20) + 1
    );
    let name = plan::name(node, now);
    let (path, draft) = (directory.join(&name), directory.join(format!("{name}{}", plan::DRAFT)));
    let written = files::replace(&draft, &content)
        .with_context(|| format!("cannot write {}", draft.display()))
        .and_then(|()| verify(&draft, secret.expose(), view));
    if let Err(error) = written {
        drop(files::remove(&draft)); // the next attempt tries again
        return Err(error);
    }
    std::fs::rename(&draft, &path).with_context(|| format!("cannot write {}", path.display()))?;
    files::sync_dir(directory)?;
    for old in plan::surplus(&plan::verified(files::list(directory, &prefix)?), *keep, &path) {
        files::remove(&old).with_context(|| format!("cannot remove {}", old.display()))?;
        tracing::info!(path = %old.display(), "an old backup has had its time");
    }
    Ok((path, bytes))
}

/// Reads a backup back from the device and opens it: it must be the state that it was made of.
fn verify(path: &Path, secret: &[u8], view: &View) -> anyhow::Result<()> {
    let content = files::read_from_device(path)?;
    let (_, state) = archive::read(&content, secret)
        .with_context(|| format!("{} is not what was written to it", path.display()))?;
    if state.position != view.position || !state.objects().eq(view.objects()) {
        bail!("{} holds another state than was written: check the disk", path.display());
    }
    Ok(())
}

/// The passphrase; nobody but its owner may be able to read it.
fn passphrase(path: &Path) -> anyhow::Result<Sensitive> {
    let name = path.display();
    let about = std::fs::metadata(path)
        .with_context(|| format!("cannot read the passphrase of backups from {name}"))?;
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!("the passphrase file {name} can be read by others (mode {mode:o}): chmod 600 {name}");
    }
    let own = nix::unistd::geteuid().as_raw();
    if about.uid() != own && about.uid() != 0 {
        bail!("the passphrase file {name} belongs to somebody else: chown root {name}");
    }
    let bytes = std::fs::read(path)
        .with_context(|| format!("cannot read the passphrase of backups from {name}"))?;
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    Ok(Sensitive::new(text.strip_suffix(b"\r").unwrap_or(text)))
}

#[cfg(test)]
mod tests;
