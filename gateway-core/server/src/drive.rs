//! Runs one HTTP connection to its end: answers, timeouts, drain.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::HttpService;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pin_project_lite::pin_project;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::drain::LAST_WORDS;
use crate::pace::{Expiry, Facts, Framing, Pace, after, expiry};
use crate::{Drain, Limits};

/// Time for an idle HTTP/1 connection to close.
const GOODBYE: Duration = Duration::from_secs(1);

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// By itself, with the error if there was one.
    Over(Option<BoxError>),
    /// Out of patience.
    Expired(Expiry),
    /// At the deadline of the drain.
    Cut,
}

/// A connection that can be asked to end when its requests are answered.
pub(crate) trait Graceful: Future<Output = Result<(), Self::Error>> {
    /// Why it failed.
    type Error: Into<BoxError>;

    /// Ends when nothing is in flight.
    fn finish(self: Pin<&mut Self>);
}

impl<I, S, B> Graceful for Pin<Box<hyper::server::conn::http2::Connection<TokioIo<I>, S, TokioExecutor>>>
where
    Self: Future<Output = hyper::Result<()>>,
    S: HttpService<Incoming, ResBody = B, Error: Into<BoxError>>,
    B: http_body::Body<Error: Into<BoxError>> + 'static,
    TokioIo<I>: hyper::rt::Read + hyper::rt::Write + Unpin,
    TokioExecutor: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    type Error = hyper::Error;

    fn finish(self: Pin<&mut Self>) {
        self.get_mut().as_mut().graceful_shutdown();
    }
}

pin_project! {
    /// Polls a connection and keeps its times.
    #[project = DriveProjection]
    pub(crate) struct Drive<C> {
        #[pin]
        connection: C,
        #[pin]
        alarm: Sleep,
        #[pin]
        signal: OwnedNotified,
        // The task that alarm and signal wake. They are polled again only when it changes: the signal is shared by
        // all connections and its lock must stay off the request path.
        waker: Option<Waker>,
        // Which head is on its way, which piece of an answer waits for the client: each with its beginning.
        head: Option<(usize, Instant)>,
        piece: Option<(usize, Instant)>,
        finishing: bool,
        close_by: Option<Instant>,
        pace: Arc<Pace>,
        limits: Limits,
        drain: Drain,
    }
}

impl<C> Drive<C> {
    pub(crate) fn new(connection: C, pace: Arc<Pace>, limits: Limits, drain: Drain) -> Self {
        Self {
            connection,
            alarm: sleep_until(after(pace.start(), limits.header_timeout)),
            signal: drain.notified(),
            waker: None,
            head: Some((1, pace.start())),
            piece: None,
            finishing: false,
            close_by: None,
            pace,
            limits,
            drain,
        }
    }
}

impl<C: Graceful> Future for Drive<C> {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<End> {
        loop {
            if let Poll::Ready(result) = self.as_mut().project().connection.poll(cx) {
                return Poll::Ready(End::Over(result.err().map(Into::into)));
            }
            let step = self.as_mut().project().step();
            match step {
                Step::Wait(wake_at) => {
                    if self.as_mut().project().set_alarm(wake_at, cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                Step::Finish => {
                    let this = self.as_mut().project();
                    *this.finishing = true;
                    this.connection.finish();
                }
                Step::End(end) => {
                    if let End::Expired(Expiry::Head) = end {
                        let this = self.as_mut().project();
                        this.pace.time_out();
                        // Lets the byte stream answer; the connection ends whatever comes of it.
                        let _ = this.connection.poll(cx);
                    }
                    return Poll::Ready(end);
                }
            }
        }
    }
}

enum Step {
    /// Nothing to do before this moment.
    Wait(Instant),
    /// Ask the connection to end when its requests are answered, and poll it again.
    Finish,
    End(End),
}

impl<C: Graceful> DriveProjection<'_, C> {
    /// What to do now that the connection itself waits.
    fn step(&mut self) -> Step {
        if self.is_at_ease() {
            return Step::Wait(self.alarm.deadline());
        }
        let drained_at = match self.drain.since() {
            Some(since) if !*self.finishing => match self.last_words(since) {
                Some(until) => self.drain.deadline().map(|deadline| deadline.min(until)),
                None => return Step::Finish,
            },
            Some(_) => self.drain.deadline(),
            None => None,
        };
        let due = expiry(self.facts(), self.limits);
        let wake_at = [due.map(|(at, _)| at), drained_at, *self.close_by].into_iter().flatten().min();
        let alarm = self.alarm.deadline();
        if !self.alarm.is_elapsed() && wake_at.is_none_or(|at| at >= alarm) {
            return Step::Wait(alarm);
        }
        let now = Instant::now();
        if let Some(step) = self.overdue(due, now) {
            return step;
        }
        // Requests of HTTP/2 end in other tasks, unseen here; none of those can become idle for long before this.
        Step::Wait(wake_at.unwrap_or_else(|| after(now, self.limits.idle_timeout)))
    }

    /// Whether all is as it mostly is, with the alarm early enough: no need to look at each of the times.
    fn is_at_ease(&self) -> bool {
        let unfollowed = self.head.is_none() && self.piece.is_none() && self.close_by.is_none();
        let flows = self.pace.heading().is_none() && self.pace.blocked().is_none();
        if !unfollowed || !flows || self.pace.framing() == Framing::H2 {
            return false;
        }
        if self.alarm.is_elapsed() || self.drain.since().is_some() {
            return false;
        }
        self.pace.idle().is_none_or(|since| self.alarm.deadline() <= after(since, self.limits.idle_timeout))
    }

    fn overdue(&mut self, due: Option<(Instant, Expiry)>, now: Instant) -> Option<Step> {
        if self.close_by.is_some_and(|at| at <= now) {
            return Some(Step::End(End::Expired(Expiry::Idle)));
        }
        if self.drain.deadline().is_some_and(|at| at <= now) {
            return Some(Step::End(End::Cut));
        }
        match due.filter(|(at, _)| *at <= now)?.1 {
            Expiry::Idle if self.close_by.is_some() => None,
            Expiry::Idle => {
                // Over HTTP/2 the end of an answer may still wait inside h2 for the client to take it.
                let goodbye = match self.pace.framing() {
                    Framing::H1 => GOODBYE,
                    Framing::H2 => self.limits.stall_timeout,
                };
                *self.close_by = Some(after(now, goodbye));
                Some(Step::Finish)
            }
            late => Some(Step::End(End::Expired(late))),
        }
    }

    /// Until when a quiet HTTP/1 connection may still bring a request; `None` when it is time to say goodbye.
    fn last_words(&self, since: Instant) -> Option<Instant> {
        if self.pace.framing() == Framing::H2 || self.pace.is_busy() {
            return None;
        }
        // The end of an answer still waits for the client, and hyper would close an idle connection over it.
        if self.pace.blocked().is_some() {
            return self.drain.deadline();
        }
        let until = since + LAST_WORDS;
        (Instant::now() < until).then_some(until)
    }

    fn facts(&mut self) -> Facts {
        follow(self.head, self.pace.heading());
        follow(self.piece, self.pace.held_back());
        // Once it is asked to end, an idle connection is not asked again: `close_by` or the drain's deadline ends it.
        let idle = if *self.finishing { None } else { self.pace.idle() };
        let since = |started: Option<(usize, Instant)>| started.map(|(_, since)| since);
        let blocked = [self.pace.blocked(), since(*self.piece)].into_iter().flatten().min();
        Facts { heading: since(*self.head), idle, blocked }
    }

    /// Makes sure that the task wakes at `wake_at` or earlier, and when draining begins. Ready if one of them is there
    /// already.
    fn set_alarm(&mut self, wake_at: Instant, cx: &mut Task<'_>) -> Poll<()> {
        let elapsed = self.alarm.is_elapsed();
        // Later deadlines do not move the alarm: a busy connection would pay for it at every request.
        let moved = elapsed || wake_at < self.alarm.deadline();
        if moved {
            self.alarm.as_mut().reset(wake_at);
        }
        let same = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if same && !moved {
            return Poll::Pending;
        }
        if !same {
            *self.waker = Some(cx.waker().clone());
            // Polled once for each waker, and never after it fired.
            if self.drain.since().is_none() && self.signal.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
        }
        self.alarm.as_mut().poll(cx)
    }
}

/// Keeps the moment at which `now` was first seen.
fn follow(started: &mut Option<(usize, Instant)>, now: Option<usize>) {
    match (now, *started) {
        (Some(now), Some((before, _))) if now == before => {}
        (Some(now), _) => *started = Some((now, Instant::now())),
        (None, _) => *started = None,
    }
}
