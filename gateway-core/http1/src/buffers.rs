//! Memory that the connections of one worker share: a connection holds some only while bytes are under way.

use std::sync::{Mutex, PoisonError};

use bytes::BytesMut;

/// Bytes of a buffer that is kept for the next reader. Larger ones, made for large bodies, are given up.
pub(crate) const SMALL: usize = 8 * 1024;
/// Buffers of each kind that wait for their next use. What is in use at the same time beyond it is allocated.
const SPARE: usize = 32;

/// Spare buffers, the newest on top. Only the tasks of one worker meet at the locks.
#[derive(Default)]
pub struct Buffers {
    read: Mutex<Vec<BytesMut>>,
    write: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// No buffers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A buffer to read into; perhaps one without room.
    pub(crate) fn reader(&self) -> BytesMut {
        pop(&self.read).unwrap_or_default()
    }

    /// Takes back an empty buffer. Slices of it may still be in use: it is written to again only when they are gone.
    pub(crate) fn give_reader(&self, buffer: BytesMut) {
        if buffer.is_empty() && buffer.capacity() > 0 && buffer.capacity() <= SMALL {
            push(&self.read, buffer);
        }
    }

    /// An empty buffer for a head; perhaps one without room.
    pub fn writer(&self) -> Vec<u8> {
        pop(&self.write).unwrap_or_default()
    }

    /// Takes a buffer back.
    pub fn give_writer(&self, mut buffer: Vec<u8>) {
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
