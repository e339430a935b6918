//! Server transactions against time, flows and retransmissions.

use std::time::Duration;

use proptest::prelude::*;

use super::super::timers::most_held;
use super::*;

const START: Moment = Moment(1_000_000);

fn at(millis: u64) -> Moment {
    START + Duration::from_millis(millis)
}

fn otid(number: u8) -> Otid {
    Otid([number; 16])
}

fn ok() -> Bytes {
    Bytes::from_static(b"SIP/2.0 200 OK\r\n\r\n")
}

fn trying() -> Bytes {
    Bytes::from_static(b"SIP/2.0 100 Trying\r\n\r\n")
}

#[test]
fn a_retransmission_is_absorbed_then_answered_for_64_t1() {
    let mut table = ServerTransactions::new(10);
    assert_eq!(table.receive(at(0), otid(1), 7, false), Received::New);
    assert_eq!(table.receive(at(500), otid(1), 7, false), Received::Absorbed);
    assert_eq!(table.respond(at(600), &otid(1), ok(), true), Some(7));
    assert_eq!(table.open(), 0);
    assert_eq!(table.respond(at(601), &otid(1), trying(), true), None, "one final response only");
    assert_eq!(table.respond(at(601), &otid(1), trying(), false), None);
    assert_eq!(table.receive(at(1500), otid(1), 7, false), Received::Repeat { flow: 7, response: ok() });
    assert_eq!(table.due(at(32_599)), []);
    assert_eq!(table.receive(at(32_599), otid(1), 7, false), Received::Repeat { flow: 7, response: ok() });
    assert_eq!(table.due(at(32_600)), []);
    assert_eq!((table.len(), table.next_due()), (0, None));
    assert_eq!(table.receive(at(32_601), otid(1), 7, false), Received::New);
}

#[test]
fn over_a_reliable_transport_it_is_over_with_its_answer() {
    let mut table = ServerTransactions::new(10);
    assert_eq!(table.receive(at(0), otid(1), 7, true), Received::New);
    assert_eq!(table.respond(at(1), &otid(1), ok(), true), Some(7));
    assert_eq!((table.len(), table.next_due()), (0, None));
    assert_eq!(table.respond(at(2), &otid(1), ok(), true), None);
}

#[test]
fn trying_comes_at_three_and_a_half_seconds_and_the_end_at_eight() {
    for reliable in [true, false] {
        let mut table = ServerTransactions::new(10);
        table.receive(at(0), otid(1), 7, reliable);
        assert_eq!(table.next_due(), Some(at(3500)));
        assert_eq!(table.due(at(3499)), []);
        assert_eq!(table.due(at(3500)), [ServerDue::Trying100(otid(1))]);
        assert_eq!(table.respond(at(3500), &otid(1), trying(), false), Some(7));
        assert_eq!(table.receive(at(4000), otid(1), 7, reliable), Received::Repeat { flow: 7, response: trying() });
        assert_eq!(table.due(at(7999)), []);
        assert_eq!(table.due(at(8000)), [ServerDue::Overdue(otid(1))]);
        assert_eq!(table.respond(at(8000), &otid(1), ok(), true), Some(7), "there is still time for an answer");
    }
}

#[test]
fn a_provisional_response_is_not_sent_early_over_udp() {
    let mut table = ServerTransactions::new(10);
    table.receive(at(0), otid(1), 7, false);
    assert_eq!(table.respond(at(3499), &otid(1), trying(), false), None);
    assert_eq!(table.receive(at(3499), otid(1), 7, false), Received::Absorbed);
    table.receive(at(0), otid(2), 8, true);
    assert_eq!(table.respond(at(1), &otid(2), trying(), false), Some(8));
    assert_eq!(table.due(at(3500)), [ServerDue::Trying100(otid(1))], "the other one has said 100 already");
}

#[test]
fn a_caller_that_never_answers_leaves_nothing_behind() {
    let mut table = ServerTransactions::new(10);
    table.receive(at(0), otid(1), 7, true);
    assert_eq!(table.due(at(60_000)), [ServerDue::Trying100(otid(1)), ServerDue::Overdue(otid(1))]);
    assert_eq!((table.len(), table.open(), table.next_due()), (0, 0, None));
}

#[test]
fn a_closed_flow_takes_its_own_transactions_with_it() {
    let mut table = ServerTransactions::new(10);
    for (number, flow, reliable) in [(1, 7, true), (2, 7, true), (3, 8, true), (4, 7, false)] {
        assert_eq!(table.receive(at(0), otid(number), flow, reliable), Received::New);
    }
    assert_eq!(table.flow_closed(7), 2);
    assert_eq!(table.flow_closed(7), 0);
    assert_eq!((table.len(), table.open()), (2, 2));
    assert_eq!(table.respond(at(1), &otid(1), ok(), true), None);
    assert_eq!(table.respond(at(1), &otid(4), ok(), true), Some(7), "a datagram has no flow to lose");
    assert_eq!(table.respond(at(1), &otid(3), ok(), true), Some(8));
}

#[test]
fn another_flow_cannot_draw_the_answer_to_itself() {
    let mut table = ServerTransactions::new(10);
    table.receive(at(0), otid(1), 7, true);
    assert_eq!(table.receive(at(1), otid(1), 66, true), Received::Absorbed);
    assert_eq!(table.respond(at(2), &otid(1), ok(), true), Some(7));

    table.receive(at(0), otid(2), 7, false);
    table.respond(at(1), &otid(2), ok(), true);
    assert_eq!(table.receive(at(2), otid(2), 66, false), Received::Repeat { flow: 7, response: ok() });
}

#[test]
fn a_full_table_says_so_and_challenges_need_no_place() {
    let mut table = ServerTransactions::new(2);
    assert_eq!(table.receive(at(0), otid(1), 7, false), Received::New);
    assert_eq!(table.receive(at(0), otid(2), 7, false), Received::New);
    assert_eq!(table.receive(at(0), otid(3), 7, false), Received::Full);
    assert_eq!(table.receive(at(0), otid(2), 7, false), Received::Absorbed);
    assert_eq!(table.forget(&otid(1)), Some(7));
    assert_eq!(table.forget(&otid(1)), None);
    assert_eq!(table.receive(at(0), otid(3), 7, false), Received::New);
}

#[test]
fn answered_ones_give_way_when_the_table_is_full() {
    let mut table = ServerTransactions::new(3);
    for number in 1..=3 {
        table.receive(at(0), otid(number), 7, false);
    }
    table.respond(at(10), &otid(2), ok(), true);
    table.respond(at(20), &otid(1), ok(), true);
    assert_eq!(table.receive(at(30), otid(4), 7, false), Received::New);
    assert_eq!(table.seen(&otid(2)), None, "answered longest ago");
    assert_eq!(table.seen(&otid(1)), Some(Received::Repeat { flow: 7, response: ok() }));
    assert_eq!(table.receive(at(40), otid(5), 7, false), Received::New);
    assert_eq!(table.receive(at(50), otid(6), 7, false), Received::Full, "work that was begun is not forgotten");
    assert_eq!((table.len(), table.open()), (3, 3));
}

/// What happens to the table.
#[derive(Clone, Debug)]
enum Step {
    Receive(u8, u8, bool),
    Respond(u8, bool),
    Forget(u8),
    Close(u8),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..20, 0_u8..4, any::<bool>()).prop_map(|(number, flow, reliable)| Step::Receive(number, flow, reliable)),
        3 => (0_u8..20, any::<bool>()).prop_map(|(number, last)| Step::Respond(number, last)),
        1 => (0_u8..20).prop_map(Step::Forget),
        1 => (0_u8..4).prop_map(Step::Close),
        4 => (0_u64..5_000).prop_map(Step::Pass),
    ]
}

/// The same rules, written down without indexes, heaps or deadlines.
#[derive(Clone, Debug)]
struct Plain {
    otid: Otid,
    flow: u8,
    reliable: bool,
    begun: Moment,
    provisional: bool,
    answered: Option<Moment>,
    said_trying: bool,
    said_overdue: bool,
}

impl Plain {
    /// Whether it has nothing left to do at `now`.
    fn is_over(&self, now: Moment) -> bool {
        now >= self.answered.unwrap_or(self.begun) + T1_64
    }
}

fn plain_due(model: &mut Vec<Plain>, now: Moment) -> Vec<ServerDue> {
    let mut events = Vec::new();
    for entry in model.iter_mut().filter(|entry| entry.answered.is_none()) {
        if !std::mem::replace(&mut entry.said_trying, now >= entry.begun + TRYING_AFTER)
            && entry.said_trying
            && !entry.provisional
        {
            events.push((entry.begun + TRYING_AFTER, entry.otid, ServerDue::Trying100(entry.otid)));
        }
        if !std::mem::replace(&mut entry.said_overdue, now >= entry.begun + OVERDUE_AFTER) && entry.said_overdue {
            events.push((entry.begun + OVERDUE_AFTER, entry.otid, ServerDue::Overdue(entry.otid)));
        }
    }
    model.retain(|entry| !entry.is_over(now));
    events.sort_by_key(|(when, otid, _)| (*when, *otid));
    events.into_iter().map(|(_, _, event)| event).collect()
}

fn plain_respond(model: &mut Vec<Plain>, now: Moment, otid: Otid, last: bool) -> Option<u8> {
    let at = model.iter().position(|entry| entry.otid == otid && entry.answered.is_none())?;
    let entry = &mut model[at];
    let flow = entry.flow;
    match (last, entry.reliable) {
        (false, false) if now < entry.begun + TRYING_AFTER => return None,
        (false, _) => entry.provisional = true,
        (true, false) => entry.answered = Some(now),
        (true, true) => {
            model.remove(at);
        }
    }
    Some(flow)
}

fn plain_receive(
    model: &mut Vec<Plain>,
    now: Moment,
    otid: Otid,
    flow: u8,
    reliable: bool,
    room: usize,
) -> Received<u8> {
    match model.iter().find(|entry| entry.otid == otid) {
        Some(entry) if entry.answered.is_some() => Received::Repeat { flow: entry.flow, response: ok() },
        Some(entry) if entry.provisional => Received::Repeat { flow: entry.flow, response: trying() },
        Some(_) => Received::Absorbed,
        None if model.len() >= room && model.iter().all(|entry| entry.answered.is_none()) => Received::Full,
        None => {
            if model.len() >= room {
                let answered = model.iter().filter_map(|entry| Some((entry.answered?, entry.otid)));
                let oldest = answered.min().map(|(_, otid)| otid);
                model.retain(|entry| Some(entry.otid) != oldest);
            }
            let (provisional, said_trying, said_overdue) = (false, false, false);
            let (begun, answered) = (now, None);
            model.push(Plain { otid, flow, reliable, begun, provisional, answered, said_trying, said_overdue });
            Received::New
        }
    }
}

proptest! {
    #[test]
    fn any_order_of_events_is_as_the_plain_rules_say(steps in prop::collection::vec(step(), 1..300)) {
        let (mut table, mut model, mut now) = (ServerTransactions::new(12), Vec::new(), START);
        for step in steps {
            match step {
                Step::Receive(number, flow, reliable) => prop_assert_eq!(
                    table.receive(now, otid(number), flow, reliable),
                    plain_receive(&mut model, now, otid(number), flow, reliable, 12)
                ),
                Step::Respond(number, last) => prop_assert_eq!(
                    table.respond(now, &otid(number), if last { ok() } else { trying() }, last),
                    plain_respond(&mut model, now, otid(number), last)
                ),
                Step::Forget(number) => {
                    let known = model.iter().find(|entry| entry.otid == otid(number)).map(|entry| entry.flow);
                    prop_assert_eq!(table.forget(&otid(number)), known);
                    model.retain(|entry| entry.otid != otid(number));
                }
                Step::Close(flow) => {
                    let before = model.len();
                    model.retain(|entry| !entry.reliable || entry.flow != flow);
                    prop_assert_eq!(table.flow_closed(flow), before - model.len());
                }
                Step::Pass(millis) => {
                    now = now + Duration::from_millis(millis);
                    prop_assert_eq!(table.due(now), plain_due(&mut model, now));
                }
            }
            prop_assert_eq!(table.len(), model.len());
            prop_assert_eq!(table.open(), model.iter().filter(|entry| entry.answered.is_none()).count());
            for otid in (0..20).map(otid) {
                let seen = plain_receive(&mut model.clone(), now, otid, 0, true, usize::MAX);
                prop_assert_eq!(table.seen(&otid).unwrap_or(Received::New), seen);
                let open = model.iter().any(|entry| entry.otid == otid && entry.answered.is_none());
                prop_assert_eq!(table.is_open(&otid), open);
            }
            prop_assert_eq!(table.is_empty(), table.next_due().is_none());
            prop_assert!(table.timers.held() <= most_held(table.len()), "deadlines leak");
        }
        table.due(now + Duration::from_secs(70));
        prop_assert!(table.is_empty() && table.reliable.is_empty() && table.answered.is_empty());
        prop_assert!(table.timers.held() == 0 && table.open() == 0);
    }
}
