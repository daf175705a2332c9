//! What tests of more than one part need.

pub mod cluster;
pub mod database;
pub mod document;
pub mod guide;
pub mod http;
pub mod load;
pub mod process;
pub mod provider;
pub mod receiver;
pub mod sender;
pub mod stream;
pub mod vectors;
pub mod wire;
