//! Memory that the connections of one pool share: a connection holds some only while bytes are under way.

use std::sync::{Mutex, PoisonError};

use bytes::BytesMut;

/// Bytes of a buffer that is kept for the next reader. Larger ones, made for large bodies, are given up.
pub(super) const SMALL: usize = 8 * 1024;
/// Buffers of each kind that wait for their next use. What is in use at the same time beyond it is allocated.
const SPARE: usize = 32;

/// Spare buffers, the newest on top. Only the tasks of one worker meet at the locks.
pub(in crate::pool) struct Buffers {
    read: Mutex<Vec<BytesMut>>,
    write: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    pub(in crate::pool) fn new() -> Self {
        Self { read: Mutex::new(Vec::new()), write: Mutex::new(Vec::new()) }
    }

    pub(super) fn reader(&self) -> BytesMut {
        pop(&self.read).unwrap_or_default()
    }

    /// Takes back an empty buffer. Slices of it may still be in use: it is written to again only when they are gone.
    pub(super) fn give_reader(&self, buffer: BytesMut) {
        if buffer.is_empty() && buffer.capacity() > 0 && buffer.capacity() <= SMALL {
            push(&self.read, buffer);
        }
    }

    pub(super) fn writer(&self) -> Vec<u8> {
        pop(&self.write).unwrap_or_default()
    }

    pub(super) fn give_writer(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 && buffer.capacity() <= SMALL {
            buffer.clear();
            push(&self.write, buffer);
        }
    }
}

fn pop<T>(spare: &Mutex<Vec<T>>) -> Option<T> {
    spare.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

fn push<T>(spare: &Mutex<Vec<T>>, buffer: T) {
    let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
    if spare.len() < SPARE {
        spare.push(buffer);
    }
}
