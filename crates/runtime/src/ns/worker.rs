//! Threads for blocking system calls. Some of these calls change the thread itself (its
//! network namespace, its file system identity), so they can't run on the async workers.

use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{oneshot, watch};

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Threads that run closures in order of arrival, each thread with a state of its own. They
/// end when the worker is dropped and the jobs handed in until then are done. The queue has
/// no bound of its own: every job belongs to one boot, dial or release that is waited for.
pub(crate) struct Worker<S> {
    jobs: Sender<Job<S>>,
    /// Jobs handed in and not done.
    pending: Arc<watch::Sender<usize>>,
}

/// Counts one job, until it is done, panics or is dropped.
struct Counted(Arc<watch::Sender<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl<S> fmt::Debug for Worker<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl<S: 'static> Worker<S> {
    /// Starts `count` threads; `init` runs on each of them first.
    pub(crate) fn start(
        name: &str,
        count: usize,
        init: impl Fn() -> io::Result<S> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (jobs, queue) = channel::<Job<S>>();
        let queue = Arc::new(Mutex::new(queue));
        let init = Arc::new(init);
        let (report, ready) = channel();
        for _ in 0..count {
            let (queue, init, report) = (Arc::clone(&queue), Arc::clone(&init), report.clone());
            thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || {
                    match init() {
                        Ok(state) => {
                            // The starter waits for this; if it went away the queue is closed too.
                            let _waiting = report.send(Ok(()));
                            work(&queue, state);
                        }
                        Err(error) => {
                            let _waiting = report.send(Err(error));
                        }
                    }
                })?;
        }
        drop(report);
        for _ in 0..count {
            ready.recv().map_err(io::Error::other)??;
        }
        Ok(Self {
            jobs,
            pending: Arc::default(),
        })
    }

    /// Hands in a closure; its result comes by the receiver, and is dropped on the worker's
    /// thread if nobody waits any more.
    pub(crate) fn submit<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> R + Send + 'static,
    ) -> oneshot::Receiver<R> {
        let (reply, receiver) = oneshot::channel();
        self.pending.send_modify(|count| *count += 1);
        let counted = Counted(Arc::clone(&self.pending));
        // A closed queue drops the reply, which the receiver sees.
        let _sent = self.jobs.send(Box::new(move |state| {
            drop(reply.send(job(state)));
            drop(counted);
        }));
        receiver
    }

    /// Runs a closure on a thread of its own, which ends with it: for what takes long, and so
    /// would keep other jobs waiting, or changes what the thread is. Its result comes as that
    /// of [`submit`](Self::submit).
    pub(crate) fn apart<R: Send + 'static>(
        &self,
        name: &str,
        job: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<oneshot::Receiver<R>> {
        let (reply, receiver) = oneshot::channel();
        self.pending.send_modify(|count| *count += 1);
        let counted = Counted(Arc::clone(&self.pending));
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                drop(reply.send(job()));
                drop(counted);
            })?;
        Ok(receiver)
    }

    /// Waits until all that was handed in is done, also what nobody waits for any more.
    pub(crate) async fn idle(&self) {
        let mut pending = self.pending.subscribe();
        // The sender lives in `self`, so the channel is open.
        let _open = pending.wait_for(|count| *count == 0).await;
    }

    /// Runs a closure and waits for it without blocking the caller's thread.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> io::Result<R> + Send + 'static,
    ) -> io::Result<R> {
        self.submit(job).await.map_err(|_| stopped())?
    }

    /// Runs a closure and blocks until it is done. Not for async code.
    pub(crate) fn run_blocking<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> io::Result<R> + Send + 'static,
    ) -> io::Result<R> {
        let (reply, receiver) = channel();
        let _sent = self
            .jobs
            .send(Box::new(move |state| drop(reply.send(job(state)))));
        receiver.recv().map_err(|_| stopped())?
    }
}

fn stopped() -> io::Error {
    io::Error::other("the runtime is stopped")
}

fn work<S>(queue: &Mutex<Receiver<Job<S>>>, mut state: S) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A panic fails the one job: its reply is dropped.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(&mut state)));
        if result.is_err() {
            tracing::error!("a runtime job panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn idle_waits_for_jobs_that_nobody_waits_for() {
        let worker = Worker::start("test", 2, || Ok(())).unwrap();
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..5 {
            let done = Arc::clone(&done);
            drop(worker.submit(move |()| {
                thread::sleep(Duration::from_millis(5));
                done.fetch_add(1, Ordering::SeqCst);
            }));
        }
        let apart = Arc::clone(&done);
        let job = move || {
            thread::sleep(Duration::from_millis(20));
            apart.fetch_add(1, Ordering::SeqCst);
        };
        drop(worker.apart("test-apart", job).unwrap());
        drop(worker.submit(|()| panic!("this job fails")));
        worker.idle().await;
        assert_eq!(done.load(Ordering::SeqCst), 6);
        assert_eq!(worker.run(|()| Ok(7)).await.unwrap(), 7);
    }
}
