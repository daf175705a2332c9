//! The provider behind the API: one account, its wallet and its OTPs, in memory.
//!
//! Lives here: what a send is checked for, and what it sets off. Does not: HTTP (`api`), webhooks (`courier`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::watch, task::JoinSet};
use uuid::Uuid;

use super::{
    attempt::AttemptLog,
    calls::CallLog,
    carrier,
    courier::{Courier, Target},
    otp::Otp,
    outcome::Outcome,
    refusal::Refusal,
    script::Script,
    wallet::Wallet,
};
use crate::{clock::Timestamp, money::Money, phone::Phone, secret::Secret};

pub(super) struct Provider {
    pub(super) key: Secret,
    pub(super) base_url: String,
    pub(super) deposit_url: String,
    pub(super) price: Money,
    pub(super) target: Option<Target>,
    pub(super) attempts: AttemptLog,
    pub(super) calls: CallLog,
    /// How many OTPs have not come to their end, with all their webhooks.
    pub(super) under_way: watch::Sender<usize>,
    pub(super) state: Mutex<State>,
}

/// What changes.
pub(super) struct State {
    pub(super) wallet: Wallet,
    pub(super) script: Script,
    pub(super) otps: HashMap<String, Otp>,
    pub(super) couriers: JoinSet<()>,
}

/// An accepted send.
pub(super) struct Accepted {
    pub(super) otp: Otp,
    pub(super) balance: Money,
}

impl Provider {
    /// What is in it is whole after each change, also after a panic elsewhere.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an OTP, charges it and sends it on its way.
    pub(super) fn send(self: &Arc<Self>, phone: &str, code: &str) -> Result<Accepted, Refusal> {
        let phone = Phone::parse(phone).map_err(|_| Refusal::InvalidPhone)?;
        let carrier = carrier::of(&phone).ok_or(Refusal::InvalidPhone)?;
        if !(4..=8).contains(&code.len()) || !code.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Refusal::InvalidCode);
        }
        let mut state = self.state();
        let plan = state.script.plan(&phone);
        if let Outcome::Refused(refusal) = plan.outcome {
            return Err(refusal);
        }
        if !state.wallet.charge(self.price) {
            return Err(Refusal::InsufficientBalance);
        }
        let (id, created_at) = (Uuid::new_v4().to_string(), Timestamp::now());
        let otp = Otp { id, phone, carrier, cost: self.price, created_at, end: None };
        state.otps.insert(otp.id.clone(), otp.clone());
        tracing::info!(id = otp.id, phone = %otp.phone, carrier, outcome = %plan.outcome, "sent");
        // Those that have arrived are forgotten.
        while state.couriers.try_join_next().is_some() {}
        if plan.outcome != Outcome::Silent {
            let courier = Courier::new(Arc::clone(self), otp.id.clone(), plan);
            state.couriers.spawn(courier.run());
        }
        Ok(Accepted { otp, balance: state.wallet.total() })
    }
}
