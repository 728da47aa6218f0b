//! HTTP/1.1 messages as bytes (RFC 9112), for the server and for the client: no socket, no clock, no task.
//!
//! | part | what it does |
//! |---|---|
//! | [`request`], [`response`] | read heads, strictly: what two readers could take two ways is refused |
//! | [`Framing`] | takes bodies apart: by length, chunked, or until the connection ends |
//! | [`Sending`] | writes a head and its body as fast as both sides allow, small ones in one write |
//! | [`Reader`], [`Buffers`] | the bytes of a connection, which holds memory only while some are under way |
//! | [`hop`] | headers that concern one connection alone |
//!
//! ```
//! use bytes::BytesMut;
//! use towpath_http1::{Section, request};
//!
//! let mut read = BytesMut::from("GET /a HTTP/1.1\r\nhost: shop.example\r\n\r\nrest");
//! let (head, _) = request::parse(&mut read, &mut Section::default(), &request::HeadLimits::default())?
//!     .expect("the head is complete");
//! assert_eq!((head.target.path(), head.keep), ("/a", true));
//! assert_eq!(read, "rest");
//! # Ok::<(), request::Refused>(())
//! ```

mod buffers;
mod decode;
mod fields;
pub mod hop;
mod read;
pub mod request;
pub mod response;
mod section;
mod send;

pub use buffers::Buffers;
pub use decode::{Chunked, Decoded, Framing};
pub use fields::{length, write_line};
pub use read::Reader;
pub use section::{Invalid, Section};
pub use send::{Broken, Length, Sending};
