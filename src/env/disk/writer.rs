//! The thread that writes a log: blocking work, in the order of the jobs, and as many of them at a
//! time as have queued, so that they share a barrier.

use std::io;

use tokio::sync::{mpsc, oneshot};

use crate::env::Scope;

/// A thread of its own that takes jobs in order, as many as have queued, and works on them. In a
/// simulation a routine that takes its time in between.
#[derive(Debug)]
pub struct Writer<J> {
    jobs: mpsc::Sender<J>,
}

impl<J> Clone for Writer<J> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone() }
    }
}

/// The writer has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log is closed")]
pub struct Closed;

impl<J: Send + 'static> Writer<J> {
    /// Starts the thread; it ends when the last handle is dropped, and completes `ended` then.
    ///
    /// # Errors
    /// When the machine has no thread left.
    pub fn start(
        scope: &Scope,
        name: &'static str,
        capacity: usize,
        mut work: impl FnMut(Vec<J>) + Send + 'static,
    ) -> io::Result<(Self, oneshot::Receiver<()>)> {
        let (jobs, mut queue) = mpsc::channel(capacity);
        let (end, ended) = oneshot::channel();
        if let Some(pace) = scope.pace() {
            tokio::spawn(async move {
                while let Some(first) = queue.recv().await {
                    tokio::time::sleep(pace.next()).await;
                    work(queued(first, &mut queue));
                }
                drop(work);
                end.send(()).ok();
            });
            return Ok((Self { jobs }, ended));
        }
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(first) = queue.blocking_recv() {
                work(queued(first, &mut queue));
            }
            drop(work);
            end.send(()).ok();
        })?;
        Ok((Self { jobs }, ended))
    }

    /// Queues a job; waits while the queue is full.
    ///
    /// # Errors
    /// [`Closed`] when the thread has ended.
    pub async fn send(&self, job: J) -> Result<(), Closed> {
        self.jobs.send(job).await.map_err(|_| Closed)
    }
}

fn queued<J>(first: J, queue: &mut mpsc::Receiver<J>) -> Vec<J> {
    let mut group = vec![first];
    while let Ok(next) = queue.try_recv() {
        group.push(next);
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_takes_what_has_queued_and_ends_with_its_handles() {
        let (groups, seen) = std::sync::mpsc::channel();
        let (gate, wait) = std::sync::mpsc::channel::<()>();
        let (writer, ended) =
            Writer::start(&Scope::root("test"), "test", 16, move |group: Vec<u32>| {
                wait.recv().unwrap();
                groups.send(group).unwrap();
            })
            .unwrap();
        let executor = tokio::runtime::Builder::new_current_thread().build().unwrap();
        executor.block_on(async {
            writer.send(1).await.unwrap();
            gate.send(()).unwrap();
            assert_eq!(seen.recv().unwrap(), [1]);
            for job in 2..=4 {
                writer.send(job).await.unwrap();
            }
            for _ in 0..3 {
                gate.send(()).ok();
            }
            drop(writer);
            ended.await.unwrap();
        });
        let rest: Vec<u32> = seen.iter().flatten().collect();
        assert_eq!(rest, [2, 3, 4]);
    }
}
