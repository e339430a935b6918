//! Access control: one verdict for presence and for messages.

use crate::address::domain_of;
use crate::config::PresencePolicy;

/// One access control entry of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ace {
    /// Whom it is about: a canonical address, a domain, or empty for everybody. More exact wins.
    pub mask: String,
    /// Right to see presence.
    pub presence: Right,
    /// Right to send messages and requests.
    pub communication: Right,
}

/// What an entry says of a right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Right {
    /// Nothing: the next less exact entry, at last the pool's policy.
    #[default]
    Unset = 0,
    /// Allowed.
    Allow = 1,
    /// Denied.
    Deny = 2,
    /// Presence only: looks like being offline.
    PoliteBlock = 3,
}

/// Who may see presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Presence {
    /// The true state.
    Allow,
    /// Nothing. On the wire the same as [`Self::PoliteBlock`]: some clients take no notice of a subscription that is
    /// ended by the server and go on showing what they saw last, while all of them understand `closed`.
    Deny,
    /// Always the state of somebody who is offline.
    PoliteBlock,
}

/// Who may send messages and requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Communication {
    /// Anything.
    Allow,
    /// Nothing.
    Deny,
}

/// What somebody may do towards a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// See the presence.
    pub presence: Presence,
    /// Send to him.
    pub communication: Communication,
}

/// What the entries of a user and the pool's policy let somebody else do.
///
/// `other` is the canonical address of the watcher or sender, `pool_member` whether its domain is one of the pool's.
/// Per right the most exact entry that says something decides: address, then domain, then everybody, then the policy.
/// Entries about others do not count. Where entries of one mask differ, the strictest holds. That a user may always see
/// and reach himself is the caller's rule: the function does not know whose entries these are.
pub fn verdict(aces: &[Ace], other: &str, pool_member: bool, policy: PresencePolicy) -> Verdict {
    let masks = [other, domain_of(other), ""];
    let decide = |right: fn(&Ace) -> Right| {
        let of_mask = |mask: &&str| {
            let rights = aces.iter().filter(|ace| ace.mask == **mask).map(right);
            rights.filter(|right| *right != Right::Unset).max_by_key(|right| strictness(*right))
        };
        masks.iter().find_map(of_mask)
    };
    let default = match policy {
        PresencePolicy::Domain if pool_member => Right::Allow,
        PresencePolicy::Domain => Right::Deny,
    };
    Verdict {
        presence: match decide(|ace| ace.presence).unwrap_or(default) {
            Right::Allow => Presence::Allow,
            Right::PoliteBlock => Presence::PoliteBlock,
            Right::Deny | Right::Unset => Presence::Deny,
        },
        communication: match decide(|ace| ace.communication).unwrap_or(default) {
            Right::Allow => Communication::Allow,
            Right::Deny | Right::PoliteBlock | Right::Unset => Communication::Deny,
        },
    }
}

const fn strictness(right: Right) -> u8 {
    match right {
        Right::Unset => 0,
        Right::Allow => 1,
        Right::PoliteBlock => 2,
        Right::Deny => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOB: &str = "bob@example.com";

    fn ace(mask: &str, presence: Right, communication: Right) -> Ace {
        Ace { mask: mask.to_owned(), presence, communication }
    }

    fn of(aces: &[Ace], other: &str, pool_member: bool) -> (Presence, Communication) {
        let verdict = verdict(aces, other, pool_member, PresencePolicy::Domain);
        (verdict.presence, verdict.communication)
    }

    #[test]
    fn policy_decides_without_entries() {
        assert_eq!(of(&[], BOB, true), (Presence::Allow, Communication::Allow));
        assert_eq!(of(&[], BOB, false), (Presence::Deny, Communication::Deny));
        let others = [ace("carol@example.com", Right::Deny, Right::Deny), ace("example.org", Right::Deny, Right::Deny)];
        assert_eq!(of(&others, BOB, true), (Presence::Allow, Communication::Allow));
    }

    #[test]
    fn the_more_exact_entry_wins() {
        let aces = [
            ace("", Right::Deny, Right::Deny),
            ace("example.com", Right::PoliteBlock, Right::Allow),
            ace(BOB, Right::Allow, Right::Deny),
        ];
        assert_eq!(of(&aces, BOB, true), (Presence::Allow, Communication::Deny));
        assert_eq!(of(&aces, "eve@example.com", true), (Presence::PoliteBlock, Communication::Allow));
        assert_eq!(of(&aces, "eve@example.org", true), (Presence::Deny, Communication::Deny));
    }

    #[test]
    fn unset_falls_through_right_by_right() {
        let aces = [ace(BOB, Right::Unset, Right::Deny), ace("example.com", Right::PoliteBlock, Right::Allow)];
        assert_eq!(of(&aces, BOB, true), (Presence::PoliteBlock, Communication::Deny));
        let aces = [ace(BOB, Right::Unset, Right::Unset)];
        assert_eq!(of(&aces, BOB, false), (Presence::Deny, Communication::Deny));
    }

    #[test]
    fn a_polite_block_stops_messages_as_a_denial_does() {
        assert_eq!(of(&[ace("", Right::Unset, Right::PoliteBlock)], BOB, true).1, Communication::Deny);
    }

    fn right() -> impl Strategy<Value = Right> {
        prop_oneof![Just(Right::Unset), Just(Right::Allow), Just(Right::Deny), Just(Right::PoliteBlock)]
    }

    fn aces() -> impl Strategy<Value = Vec<Ace>> {
        let mask = prop_oneof![Just(""), Just("example.com"), Just(BOB), Just("eve@example.org")];
        let one = (mask, right(), right()).prop_map(|(mask, p, c)| ace(mask, p, c));
        proptest::collection::vec(one, 0..8)
    }

    proptest! {
        #[test]
        fn order_does_not_matter(aces in aces(), member in any::<bool>()) {
            let mut reversed = aces.clone();
            reversed.reverse();
            prop_assert_eq!(of(&aces, BOB, member), of(&reversed, BOB, member));
        }

        #[test]
        fn a_denial_of_the_address_is_final(mut aces in aces(), member in any::<bool>()) {
            aces.push(ace(BOB, Right::Deny, Right::Deny));
            prop_assert_eq!(of(&aces, BOB, member), (Presence::Deny, Communication::Deny));
        }
    }
}
