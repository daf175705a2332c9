//! The provider's answers to a send and to the question for the balance.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{delivery::DeliveryId, money::Money};

/// An OTP that the provider has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub id: DeliveryId,
    /// The carrier's name as the provider gives it; new ones may come.
    pub carrier: String,
    /// What it costs, in US dollars.
    pub cost: Money,
    /// What the wallet then holds, in US dollars.
    pub balance: Money,
}

/// What the wallet holds, in US dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// In all.
    pub balance: Money,
    /// What it is made of.
    pub buckets: Buckets,
}

/// What a wallet is made of, in US dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buckets {
    /// Money paid in.
    pub balance: Money,
    /// Credit given on top of it.
    pub bonus_credit: Money,
    /// Credit given for nothing.
    pub free_credit: Money,
}

impl Sent {
    /// Reads the body of a 202; `None` when it is not as documented.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Fields<'a> {
            id: String,
            carrier: String,
            #[serde(borrow)]
            cost: &'a RawValue,
            #[serde(borrow)]
            balance: &'a RawValue,
        }
        let fields: Fields<'_> = serde_json::from_slice(body).ok()?;
        Some(Self {
            id: DeliveryId::parse(fields.id).ok()?,
            carrier: fields.carrier,
            cost: Money::parse(fields.cost.get()).ok()?,
            balance: Money::parse(fields.balance.get()).ok()?,
        })
    }
}

impl Balance {
    /// Likewise of the balance's 200.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(borrow)]
            balance: &'a RawValue,
            #[serde(borrow)]
            buckets: InBuckets<'a>,
        }
        #[derive(Deserialize)]
        struct InBuckets<'a> {
            #[serde(borrow)]
            balance: &'a RawValue,
            #[serde(borrow)]
            bonus_credit: &'a RawValue,
            #[serde(borrow)]
            free_credit: &'a RawValue,
        }
        let Fields { balance, buckets } = serde_json::from_slice(body).ok()?;
        let money = |raw: &RawValue| Money::parse(raw.get()).ok();
        let buckets = Buckets {
            balance: money(buckets.balance)?,
            bonus_credit: money(buckets.bonus_credit)?,
            free_credit: money(buckets.free_credit)?,
        };
        Some(Self { balance: money(balance)?, buckets })
    }
}
