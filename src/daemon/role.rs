//! The manager half of a node: started, asked into the group, ended, as the node's role says.

use super::group::Group;
use super::manager::{self, Beginning, Manager, Parts};
use super::node::{Inner, Node, Running};
use super::record::Record;
use crate::domain::node::Role;
use crate::domain::{Autolock, RaftId};

impl Node {
    /// What the manager half of this node is made of.
    pub(super) fn manager_parts(&self, running: &Running) -> Parts {
        let Inner { env, settings, keyring, .. } = &*self.inner;
        Parts {
            env: env.clone(),
            identity: running.identity.clone(),
            channels: running.channels.clone(),
            state_dir: settings.state_dir.clone(),
            keyring: keyring.clone(),
            backup: settings.backup.clone(),
            format_hold: settings.format_hold,
            local: self.inner.local.clone(),
        }
    }

    /// Starts the manager half; asks for membership first, if the node has none.
    pub(super) async fn start_manager(
        &self,
        running: &mut Running,
        beginning: Beginning,
    ) -> anyhow::Result<()> {
        let Inner { settings, keyring, .. } = &*self.inner;
        let parts = self.manager_parts(running);
        let mut record = running.record.clone();
        let mut first = None;
        match beginning {
            Beginning::Found(changes) => {
                record.raft = Some(RaftId(1));
                first = Some(changes);
            }
            Beginning::Revive(seed) => {
                record.raft = Some(seed.epoch);
                record.raft_folder = seed.folder();
                parts.plant(&record, *seed, &running.scope).await?;
            }
            Beginning::Resume if record.raft.is_none() => {
                let (raft_id, lock) = self.ask_for_membership(running).await?;
                keyring.data_key(&lock)?;
                keyring.follow(&lock)?;
                record.raft = Some(raft_id);
            }
            Beginning::Resume => {}
        }
        let Some(raft_id) = record.raft else { return Ok(()) };
        if record != running.record {
            record.save(&settings.state_dir)?;
            running.record = record;
        }
        let manager =
            Manager::start(&parts, &running.record, raft_id, first, &running.scope).await?;
        self.inner.store.send_replace(Some(manager.store()));
        self.inner.dispatcher.send_replace(Some(manager.dispatcher()));
        self.inner.parts.send_modify(|parts| {
            parts.raft = Some(manager.raft());
            parts.leases = Some(manager.leases());
        });
        let (node, mut newer) = (self.clone(), manager.newer());
        running.scope.spawn("newer-format", async move {
            let what = newer.wait_for(Option::is_some).await.ok().and_then(|it| it.clone());
            if let Some(what) = what {
                node.step_aside(&what).await;
            }
        });
        running.manager = Some(manager);
        Ok(())
    }

    /// Ends the manager half, as it cannot read what the other managers write. What it has stays,
    /// and so do its agent, its names and its containers.
    async fn step_aside(&self, what: &str) {
        let mut slot = self.inner.running.lock().await;
        let Some(running) = slot.as_mut() else { return };
        running.trouble = format!(
            "this manager's release is too old for its swarm: {what}. Install the release that the \
             other managers run and start the daemon again; until then it takes no part"
        );
        tracing::error!(error = running.trouble, "the manager half does not run");
        self.stop_manager(running).await;
        self.publish(running);
    }

    /// Asks the managers it knows for a raft id, and how managers lock their data.
    async fn ask_for_membership(&self, running: &Running) -> anyhow::Result<(RaftId, Autolock)> {
        let mut last = anyhow::anyhow!("no manager is known");
        for addr in &running.record.managers {
            let group = Group { channels: &running.channels, env: &self.inner.env };
            match group.join(*addr, running.record.advertise).await {
                Ok(place) => return Ok(place),
                Err(error) => last = error,
            }
        }
        Err(last.context("the managers did not take this node into their group"))
    }

    /// Ends the manager half; its data stays.
    pub(super) async fn stop_manager(&self, running: &mut Running) {
        if let Some(manager) = running.manager.take() {
            self.inner.store.send_replace(None);
            self.inner.dispatcher.send_replace(None);
            self.inner.parts.send_modify(|parts| (parts.raft, parts.leases) = (None, None));
            manager.stop().await;
            // When nobody writes backups any more: what is told of them grows old.
            self.inner.local.send_modify(|local| local.backups = None);
        }
    }

    /// Starts or ends the manager half, as the certificate now says.
    pub(super) async fn become_role(&self, role: Role) -> anyhow::Result<()> {
        let mut slot = self.inner.running.lock().await;
        let Some(running) = slot.as_mut() else { return Ok(()) };
        match role {
            Role::Manager if running.manager.is_none() => {
                if let Some(worker) = &running.worker {
                    running.record.managers =
                        worker.managers().into_iter().map(|(_, addr)| addr).collect();
                }
                self.start_manager(running, Beginning::Resume).await?;
            }
            Role::Worker if running.manager.is_some() || running.record.raft.is_some() => {
                self.stop_manager(running).await;
                manager::forget(&self.inner.settings.state_dir, &self.inner.keyring)?;
                running.record.raft = None;
                running.record.raft_folder = Record::first_folder();
                running.record.save(&self.inner.settings.state_dir)?;
            }
            Role::Manager | Role::Worker => {}
        }
        running.trouble.clear();
        self.publish(running);
        tracing::info!(role = role.as_str(), "role changed");
        Ok(())
    }
}
