//! The money of the sandbox's one account.
//!
//! Lives here: buckets and charging. Does not: prices.

use serde::Serialize;

use crate::money::Money;

/// The wallet, in the provider's three buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Wallet {
    /// What was paid in.
    pub balance: Money,
    /// What was given on top of a payment.
    pub bonus_credit: Money,
    /// What was given at the start.
    pub free_credit: Money,
}

impl Wallet {
    /// All buckets together.
    #[must_use]
    pub fn total(&self) -> Money {
        let [balance, bonus, free] = [self.balance, self.bonus_credit, self.free_credit].map(Money::amount);
        Money::new(balance + bonus + free)
    }

    /// Takes an amount, what was given first; false when there is not enough, and then nothing is taken.
    pub(super) fn charge(&mut self, price: Money) -> bool {
        if self.total() < price {
            return false;
        }
        let mut due = price;
        for bucket in [&mut self.free_credit, &mut self.bonus_credit, &mut self.balance] {
            let part = due.min(*bucket);
            *bucket = Money::new(bucket.amount() - part.amount());
            due = Money::new(due.amount() - part.amount());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(text: &str) -> Money {
        Money::parse(text).unwrap()
    }

    #[test]
    fn the_free_credit_goes_first_and_is_good_for_five() {
        let mut wallet =
            Wallet { balance: money("0.03"), bonus_credit: Money::ZERO, free_credit: money("0.11") };
        for _ in 0..5 {
            assert!(wallet.charge(money("0.022")));
        }
        assert_eq!((wallet.free_credit, wallet.balance), (Money::ZERO, money("0.03")));
        assert!(wallet.charge(money("0.022")));
        assert!(!wallet.charge(money("0.022")));
        assert_eq!(wallet.total(), money("0.008"));
    }
}
