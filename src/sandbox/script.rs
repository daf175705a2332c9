//! What is to become of the next OTP: what was told of its phone, else what its test number says, else chance.
//!
//! Lives here: the only chance in the sandbox, which a seed makes repeatable.

use std::{borrow::Cow, collections::HashMap, ops::RangeInclusive, time::Duration};

use fastrand::Rng;

use super::{
    fault::Fault,
    outcome::{ERROR_CODES, NUMBERS, Outcome},
};
use crate::phone::Phone;

/// Chances, and what was told of single phones.
pub(super) struct Script {
    pub(super) rng: Rng,
    pub(super) delivered_rate: f64,
    pub(super) delay: RangeInclusive<Duration>,
    pub(super) slow: Duration,
    /// Which share of webhooks has which fault; the rest has none.
    pub(super) faults: Vec<(Fault, f64)>,
    pub(super) outcomes: HashMap<String, Outcome>,
    pub(super) faults_of: HashMap<String, Option<Fault>>,
}

/// What is to become of one OTP.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) outcome: Outcome,
    /// When it gets there.
    pub(super) delay: Duration,
    pub(super) fault: Option<Fault>,
}

impl Script {
    /// The plan for the next OTP. The n-th plan takes the same chances whatever was told of the phones before it.
    pub(super) fn plan(&mut self, phone: &Phone) -> Plan {
        let mut rng = self.rng.fork();
        let chance = self.chance(&mut rng);
        let phone = phone.reveal();
        let number = NUMBERS.iter().find(|number| number.phone == phone);
        let outcome = self.outcomes.get(phone).or(number.map(|number| &number.outcome));
        let fault = self.faults_of.get(phone).copied().or(number.and_then(|number| number.fault.map(Some)));
        let outcome = outcome.cloned().unwrap_or(chance.outcome);
        let delay = if outcome == Outcome::Slow { self.slow } else { chance.delay };
        Plan { outcome, delay, fault: fault.unwrap_or(chance.fault) }
    }

    fn chance(&self, rng: &mut Rng) -> Plan {
        let is_delivered = rng.f64() < self.delivered_rate;
        let code = Cow::Borrowed(ERROR_CODES[rng.usize(..ERROR_CODES.len())]);
        let (from, to) = (*self.delay.start(), *self.delay.end());
        let delay = from + to.saturating_sub(from).mul_f64(rng.f64());
        let mut place = rng.f64();
        let mut falls_here = |share: f64| {
            place -= share;
            place < 0.0
        };
        let fault = self.faults.iter().find(|(_, share)| falls_here(*share)).map(|(fault, _)| *fault);
        let outcome = if is_delivered { Outcome::Delivered } else { Outcome::Failed(code) };
        Plan { outcome, delay, fault }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(seed: u64) -> Script {
        Script {
            rng: Rng::with_seed(seed),
            delivered_rate: 0.7,
            delay: Duration::from_secs(25)..=Duration::from_secs(60),
            slow: Duration::from_secs(90),
            faults: vec![(Fault::Twice, 0.2), (Fault::Dropped, 0.1)],
            outcomes: HashMap::new(),
            faults_of: HashMap::new(),
        }
    }

    fn phone(text: &str) -> Phone {
        Phone::parse(text).unwrap()
    }

    #[test]
    fn a_seed_repeats_a_run_and_test_numbers_do_not_shift_it() {
        let (any, failing) = (phone("+84981234567"), phone("+84900000001"));
        let [mut one, mut other] = [script(7), script(7)];
        let plans: Vec<_> = (0..50).map(|_| one.plan(&any)).collect();
        let again = (0..50).map(|n| {
            let plan = other.plan(if n % 2 == 0 { &any } else { &failing });
            (n % 2 == 0).then_some(plan)
        });
        for (first, second) in plans.iter().zip(again) {
            assert!(second.is_none_or(|second| second == *first));
        }
        let mut third = script(8);
        assert_ne!(plans, (0..50).map(|_| third.plan(&any)).collect::<Vec<_>>());
    }

    #[test]
    fn rates_and_delays_are_kept() {
        let mut script = script(1);
        let plans: Vec<_> = (0..10_000).map(|_| script.plan(&phone("+84981234567"))).collect();
        let share = |is: &dyn Fn(&Plan) -> bool| plans.iter().filter(|plan| is(plan)).count();
        assert!((6_800..7_200).contains(&share(&|plan| plan.outcome == Outcome::Delivered)));
        assert!((1_850..2_150).contains(&share(&|plan| plan.fault == Some(Fault::Twice))));
        assert!((880..1_120).contains(&share(&|plan| plan.fault == Some(Fault::Dropped))));
        assert!(plans.iter().all(|plan| script.delay.contains(&plan.delay)));
        for code in ERROR_CODES {
            assert!(share(&|plan| plan.outcome == Outcome::Failed(code.into())) > 450, "{code}");
        }
    }

    #[test]
    fn what_was_told_comes_before_the_number_and_the_number_before_chance() {
        let mut script = script(1);
        script.faults = vec![(Fault::Late, 1.0)];
        let plan = script.plan(&phone("+84900000021"));
        assert_eq!((plan.outcome, plan.delay), (Outcome::Slow, script.slow));
        assert_eq!(script.plan(&phone("+84900000037")).fault, Some(Fault::Dropped));
        assert_eq!(script.plan(&phone("+84900000000")).fault, Some(Fault::Late));
        script.outcomes.insert("+84900000000".into(), Outcome::Silent);
        script.faults_of.insert("+84900000000".into(), None);
        let plan = script.plan(&phone("+84900000000"));
        assert_eq!((plan.outcome, plan.fault), (Outcome::Silent, None));
    }
}
