//! Writes one JSON line per request without ever making a worker wait.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::Record;

/// Lines that may wait for the writer.
const CAPACITY: usize = 8192;
/// How long lines gather before they are written. Whoever waits in the channel has to be waked for every line, which costs
/// more than the line.
const GATHER: Duration = Duration::from_millis(10);
/// A typical line; longer ones grow.
const LINE: usize = 768;

/// Where records are written, one JSON object a line.
///
/// Workers hand finished lines to a thread through a bounded channel. When the channel is full, or the sink fails,
/// lines are dropped and counted (`towpath_access_log_dropped_total`): a slow disk must not slow requests down.
/// Clones share the thread; when the last one is dropped, the thread writes what is left and ends.
#[derive(Clone)]
pub struct AccessLog(Option<Sink>);

#[derive(Clone)]
struct Sink {
    lines: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

impl AccessLog {
    /// Writes nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Writes to standard output. Fails if no thread can be started.
    pub fn stdout() -> io::Result<Self> {
        Self::writer(io::stdout())
    }

    /// Appends to a file, which is made if it is not there and stays open (rotate it by copy and truncate). Fails if
    /// it cannot be opened, or no thread started.
    pub fn file(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot open the access log {}: {error}", path.display()))
        })?;
        Self::writer(file)
    }

    /// Writes to any other sink; 8192 lines may wait for it. Fails if no thread can be started.
    pub fn writer(sink: impl Write + Send + 'static) -> io::Result<Self> {
        Self::with_capacity(sink, CAPACITY)
    }

    /// Writes to any sink; at most `lines` (at least 1) wait for it. Fails if no thread can be started.
    pub fn with_capacity(sink: impl Write + Send + 'static, lines: usize) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(lines.max(1));
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = dropped.clone();
        thread::Builder::new().name("access-log".into()).spawn(move || drain(&receiver, sink, &lost))?;
        Ok(Self(Some(Sink { lines: sender, dropped })))
    }

    /// Lines that were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |sink| sink.dropped.load(Ordering::Relaxed))
    }

    /// Waits until the lines that are there now are written, at most for `patience`; says whether they were. It
    /// blocks the thread: call it at the end of a process, never on a worker.
    pub fn flush(&self, patience: Duration) -> bool {
        let Some(sink) = &self.0 else { return true };
        let (done, wait) = sync_channel(1);
        sink.lines.send(Message::Flush(done)).is_ok() && wait.recv_timeout(patience).is_ok()
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn write(&self, record: &Record<'_>) {
        self.write_line(|line| record.write_json(line));
    }

    /// Writes what `fill` puts into a line.
    pub(crate) fn write_line(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        let Some(sink) = &self.0 else { return };
        let mut line = Vec::with_capacity(LINE);
        fill(&mut line);
        line.push(b'\n');
        if sink.lines.try_send(Message::Line(line)).is_err() {
            sink.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counter of dropped lines, shared with the writer.
    pub(crate) fn dropped_counter(&self) -> Option<&Arc<AtomicU64>> {
        self.0.as_ref().map(|sink| &sink.dropped)
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_on() { "on" } else { "off" };
        write!(f, "AccessLog({state}, {} dropped)", self.dropped())
    }
}

/// The writer's thread: gathers the lines of a moment, writes them at once, and waits when there are none.
fn drain(lines: &Receiver<Message>, mut sink: impl Write, dropped: &AtomicU64) {
    let mut batch = Batch::default();
    while let Ok(first) = lines.recv() {
        let mut waiting = batch.take(first);
        if waiting.is_empty() {
            thread::sleep(GATHER);
        }
        for message in lines.try_iter().take(CAPACITY) {
            waiting.extend(batch.take(message));
        }
        batch.write(&mut sink, dropped);
        for done in waiting {
            // Whoever waits may have gone.
            let _ = done.try_send(());
        }
    }
}

#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
}

impl Batch {
    fn take(&mut self, message: Message) -> Vec<SyncSender<()>> {
        match message {
            Message::Line(line) => {
                self.bytes.extend_from_slice(&line);
                self.lines += 1;
                Vec::new()
            }
            Message::Flush(done) => vec![done],
        }
    }

    fn write(&mut self, sink: &mut impl Write, dropped: &AtomicU64) {
        if sink.write_all(&self.bytes).and_then(|()| sink.flush()).is_err() {
            dropped.fetch_add(self.lines, Ordering::Relaxed);
        }
        self.bytes.clear();
        self.lines = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::record::tests::sample;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A sink that says when it is asked to write, waits for leave, then hands on what it was given.
    struct Gate {
        asked: mpsc::Sender<()>,
        leave: mpsc::Receiver<()>,
        got: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.asked.send(()).map_err(io::Error::other)?;
            self.leave.recv().map_err(io::Error::other)?;
            self.got.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_sink_drops_lines_and_never_blocks() {
        let ((asked, is_asked), (give, leave), (got, taken)) =
            (mpsc::channel(), mpsc::channel(), mpsc::channel());
        let log = AccessLog::with_capacity(Gate { asked, leave, got }, 2).unwrap();
        sample(|record| log.write(record));
        is_asked.recv_timeout(PATIENCE).unwrap();
        // The writer is stuck with one line, two more may wait.
        (0..9).for_each(|_| sample(|record| log.write(record)));
        assert_eq!(log.dropped(), 7);
        (0..4).for_each(|_| give.send(()).unwrap());
        assert!(log.flush(PATIENCE));
        assert_eq!(taken.try_iter().flatten().filter(|byte| *byte == b'\n').count(), 3);
    }

    #[test]
    fn a_full_disk_is_counted() {
        let log = AccessLog::writer(Full).unwrap();
        sample(|record| log.write(record));
        assert!(log.flush(PATIENCE));
        assert_eq!(log.dropped(), 1);
    }

    #[test]
    fn lines_reach_a_file_in_order() {
        let path = std::env::temp_dir().join(format!("towpath-access-{}.log", std::process::id()));
        let log = AccessLog::file(&path).unwrap();
        for _ in 0..3 {
            sample(|record| log.write(record));
        }
        assert!(log.flush(PATIENCE));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = AccessLog::file("/nowhere/access.log").unwrap_err();
        assert!(error.to_string().contains("/nowhere/access.log"));
    }
}
