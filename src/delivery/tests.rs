//! The merge rule as properties, and what an id may be.

use super::*;
use proptest::{collection::vec, option, prelude::*, sample::select};

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000).unwrap()
}

prop_compose! {
    /// Few distinct values, so that ties and repeats are common.
    fn state_told_by(provider: bool)(
        body in 0u8..5,
        status in select(Status::ALL.to_vec()),
        created_at in option::of(0i64..3),
        completed_at in option::of(-1i64..3),
        received_at in 0i64..4,
        knows in any::<[bool; 3]>(),
    ) -> Delivery {
        // The same body says the same: the digest covers every field but when it came.
        let said = format!("{body} {status:?} {created_at:?} {completed_at:?} {provider} {knows:?}");
        let digest = Digest::of(said.as_bytes());
        let (status, completed_at) =
            if provider { (status, completed_at.map(time)) } else { (Status::Sent, None) };
        let known = |field: usize| provider || knows[field];
        Delivery {
            id: DeliveryId::parse("a".into()).unwrap(),
            phone: known(0).then(|| Phone::parse(&format!("+8498123456{body}")).unwrap()),
            carrier: known(1).then(|| body.to_string()),
            status,
            cost: known(2).then_some(Money::ZERO),
            error_code: None,
            created_at: created_at.map(time),
            completed_at,
            received_at: time(received_at),
            source: Source::Webhook,
            standing: match provider {
                true => Standing::new(status, completed_at, digest),
                false => Standing::of_a_word(digest),
            },
        }
    }
}

fn state() -> impl Strategy<Value = Delivery> {
    any::<bool>().prop_flat_map(state_told_by)
}

fn fold(states: &[Delivery]) -> Delivery {
    states.iter().cloned().reduce(Delivery::merge).unwrap()
}

proptest! {
    #[test]
    fn any_order_and_any_repetition_give_one_result(
        states in vec(state(), 1..8),
        again in vec(any::<prop::sample::Index>(), 0..8),
        seed in any::<u64>(),
    ) {
        let mut shuffled = states.clone();
        shuffled.extend(again.iter().map(|index| states[index.index(states.len())].clone()));
        let mut random = seed;
        for at in (1..shuffled.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            shuffled.swap(at, usize::try_from(random >> 33).unwrap() % (at + 1));
        }
        prop_assert_eq!(fold(&shuffled), fold(&states));
    }

    #[test]
    fn merge_is_associative_commutative_and_idempotent(a in state(), b in state(), c in state()) {
        prop_assert_eq!(a.clone().merge(b.clone()), b.clone().merge(a.clone()));
        prop_assert_eq!(a.clone().merge(b.clone()).merge(c.clone()), a.clone().merge(b.merge(c)));
        prop_assert_eq!(a.clone().merge(a.clone()), a);
    }

    #[test]
    fn sent_never_overwrites_a_terminal_state(a in state(), b in state()) {
        let merged = a.clone().merge(b.clone());
        prop_assert_eq!(merged.status.is_terminal(), a.status.is_terminal() || b.status.is_terminal());
    }

    #[test]
    fn what_a_caller_tells_changes_nothing_that_the_provider_told(
        a in state_told_by(true),
        b in state_told_by(false),
    ) {
        prop_assert_eq!(a.clone().merge(b), a);
    }

    #[test]
    fn what_one_caller_knows_is_not_lost_to_another(a in state_told_by(false), b in state_told_by(false)) {
        let merged = a.clone().merge(b.clone());
        prop_assert_eq!(merged.phone.is_some(), a.phone.is_some() || b.phone.is_some());
        prop_assert_eq!(merged.carrier.is_some(), a.carrier.is_some() || b.carrier.is_some());
        prop_assert_eq!(merged.created_at.is_some(), a.created_at.is_some() || b.created_at.is_some());
    }

    #[test]
    fn the_later_completion_is_the_state(a in state_told_by(true), b in state_told_by(true)) {
        prop_assume!(a.status.is_terminal() && b.status.is_terminal());
        let latest = a.completed_at.max(b.completed_at);
        prop_assert_eq!(a.merge(b).completed_at, latest);
    }
}

#[test]
fn delivered_wins_a_tie() {
    for digest in [b"1", b"2", b"3", b"4"] {
        let delivered = Standing::new(Status::Delivered, Some(time(1)), Digest::of(digest));
        assert!(delivered > Standing::new(Status::Failed, Some(time(1)), Digest::of(b"0")));
    }
}

#[test]
fn each_id_has_a_key_of_its_own() {
    let uuid = "8f2e1c4d-6a1b-4a0e-9c55-0d6f4b1a2c3e";
    let id = |text: &str| DeliveryId::parse(text.into()).unwrap();
    assert_eq!(id(uuid).key().uuid().to_string(), uuid);
    assert_eq!(id(&uuid.to_uppercase()), id(uuid));
    assert_eq!(id("ABC").as_str(), "ABC");
    // Other ways to write it are other ids, as texts are.
    let others =
        [&uuid.replace('-', "").to_uppercase(), &uuid.replace('-', ""), &format!("{{{uuid}}}"), "a", "b"];
    let mut keys: Vec<_> = others.iter().map(|other| id(other).key()).chain([id(uuid).key()]).collect();
    assert!(others.iter().all(|other| id(other).as_uuid().is_none()));
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), others.len() + 1);
}

#[test]
fn no_id_can_be_chosen_to_have_anothers_key() {
    let id = |text: &str| DeliveryId::parse(text.into()).unwrap();
    let derived = id("a").key().uuid().to_string();
    assert_eq!(id(&derived).as_uuid(), None);
    assert_ne!(id(&derived).key(), id("a").key());
    let again = id(&derived).key().uuid().to_string();
    assert_ne!(id(&again).key(), id(&derived).key());
}

#[test]
fn an_id_has_a_length_that_an_index_can_hold() {
    assert!(DeliveryId::parse("x".repeat(255)).is_ok());
    for wrong in [String::new(), "x".repeat(256), "é".repeat(128), "a\0".into()] {
        assert_eq!(DeliveryId::parse(wrong), Err(InvalidDeliveryId));
    }
}

#[test]
fn each_word_is_parsed_as_what_it_is_written_for() {
    for status in Status::ALL {
        assert_eq!(Status::parse(status.as_str()), Some(status));
    }
    for source in [Source::Webhook, Source::Poll, Source::Send] {
        assert_eq!(Source::parse(source.as_str()), Some(source));
    }
    assert_eq!((Status::parse("expired"), Source::parse("guess")), (None, None));
}

#[test]
fn after_sent_something_is_to_come_and_after_nothing_else() {
    assert_eq!(Status::ALL.map(Status::is_terminal), [false, true, true]);
}

#[test]
fn a_standing_is_printed_as_the_bytes_that_are_compared() {
    let standing = Standing::new(Status::Failed, None, Digest::from_bytes([0xab; 32]));
    assert_eq!(format!("{standing:?}"), format!("02{}{}", "00".repeat(9), "ab".repeat(32)));
}

#[test]
fn only_what_is_still_sent_after_a_day_is_given_up() {
    let now = time(100 * 3600);
    let told = |status, created_at, received_at| Delivery {
        id: DeliveryId::parse("a".into()).unwrap(),
        phone: None,
        carrier: None,
        status,
        cost: None,
        error_code: None,
        created_at,
        completed_at: None,
        received_at,
        source: Source::Send,
        standing: Standing::of_a_word(Digest::of(b"")),
    };
    for (status, hours, given_up) in
        [(Status::Sent, 24, true), (Status::Sent, 23, false), (Status::Delivered, 25, false)]
    {
        let then = now.hours_before(hours);
        assert_eq!(told(status, Some(then), now).is_stale(now), given_up, "{status:?} {hours} hours ago");
        assert_eq!(told(status, None, then).is_stale(now), given_up, "{status:?} since {hours} hours");
    }
}
