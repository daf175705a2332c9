//! What tests of more than one part need.

pub(crate) mod database;
