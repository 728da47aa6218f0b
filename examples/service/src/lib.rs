//! A small HTTP application that calls others, for demonstrations and tests
