//! Receives NEXO ROUTE's delivery webhooks, keeps them durably, answers what became of an OTP.
//!
//! The modules stand in the order in which an event passes them; each knows only those before it.

// Vocabulary: pure values.
pub mod clock;
pub mod money;
pub mod phone;
pub mod secret;

// How it speaks to whoever runs it.
pub mod logs;

// bytes → verified
pub mod signature;

// The bytes of an event, signed or not.
pub mod proof;

// Signed events in numbers, for measuring a receiver. Knows nothing of this one.
pub mod flood;

// Tasks that go on until they are told to stop.
pub mod background;

// Beside the way: one call over HTTP, and the provider simulated with it.
pub mod call;
pub mod sandbox;

// verified → event → the state it tells
pub mod delivery;
pub mod event;
pub mod watch;

// Beside the way: the provider, called.
pub mod provider;

// What it answers → arrivals
pub mod answers;

// events → batch → commit
pub mod batch;
pub mod store;

// The queue before the store, what is counted on the way, and those who wait for what comes of it.
pub mod metrics;
pub mod news;
pub mod waiting;
pub mod writer;

// Every change, for those who follow.
pub mod feed;

// OTPs on their way out, through this service.
pub mod sending;

// What no webhook has told, asked for.
pub mod reconcile;

// Beside the way: hours that are over, for statistics; and what is kept for a time only.
pub mod summary;
pub mod upkeep;

// bytes in, answers out
pub mod http;

// All of it put together.
pub mod service;

// What it is told.
pub mod settings;

// The commands.
pub mod cli;
