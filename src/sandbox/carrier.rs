//! Which carrier a Vietnamese mobile number belongs to, by its prefix in today's numbering plan.
//!
//! Lives here: the plan. Does not: numbers that moved to another carrier, which only the carriers know.

use crate::phone::Phone;

/// The digits between the country code and the last seven, and whose they are. The provider's pages show the names
/// `viettel`, `vinaphone`, `mobifone` and `vietnamobile`; the other names are the sandbox's own.
const PLAN: [(&str, &[u8]); 7] = [
    ("viettel", &[32, 33, 34, 35, 36, 37, 38, 39, 86, 96, 97, 98]),
    ("vinaphone", &[81, 82, 83, 84, 85, 88, 91, 94]),
    ("mobifone", &[70, 76, 77, 78, 79, 89, 90, 93]),
    ("vietnamobile", &[52, 56, 58, 92]),
    ("gmobile", &[59, 99]),
    ("wintel", &[55]),
    ("itel", &[87]),
];

/// The carrier, if this is a Vietnamese mobile number.
pub(super) fn of(phone: &Phone) -> Option<&'static str> {
    let national = phone.reveal().strip_prefix("+84").filter(|digits| digits.len() == 9)?;
    let prefix: u8 = national[..2].parse().ok()?;
    PLAN.iter().find(|(_, prefixes)| prefixes.contains(&prefix)).map(|(carrier, _)| *carrier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_belongs_to_the_carrier_of_its_prefix() {
        for (number, carrier) in [
            ("+84981234567", Some("viettel")),
            ("+84321234567", Some("viettel")),
            ("+84861234567", Some("viettel")),
            ("+84941234567", Some("vinaphone")),
            ("+84771234567", Some("mobifone")),
            ("+84521234567", Some("vietnamobile")),
            ("+84991234567", Some("gmobile")),
            ("+84551234567", Some("wintel")),
            ("+84871234567", Some("itel")),
            // A landline, a prefix that nobody has, one that was given up in 2018, lengths, another country.
            ("+84241234567", None),
            ("+84951234567", None),
            ("+841681234567", None),
            ("+8498123456", None),
            ("+849812345678", None),
            ("+85981234567", None),
        ] {
            assert_eq!(of(&Phone::parse(number).unwrap()), carrier, "{number}");
        }
    }

    #[test]
    fn a_prefix_has_one_owner() {
        let mut all: Vec<u8> = PLAN.iter().flat_map(|(_, prefixes)| *prefixes).copied().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
