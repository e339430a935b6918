//! Client transactions against time, flows and retransmissions.

use proptest::prelude::*;

use super::super::timers::most_held;
use super::*;

const START: Moment = Moment(1_000_000);

fn at(millis: u64) -> Moment {
    START + Duration::from_millis(millis)
}

fn request() -> Bytes {
    Bytes::from_static(b"MESSAGE sip:b SIP/2.0\r\n\r\n")
}

fn started(reliable: bool, deadline: u64) -> ClientTransactions<u8, &'static str> {
    let mut table = ClientTransactions::new(10);
    table.start(at(0), "b1", 7, reliable, request(), at(deadline), "ctx").unwrap();
    table
}

/// Moments, in milliseconds, at which copies are sent until nothing is left to do; the last entry is the end.
fn run(table: &mut ClientTransactions<u8, &'static str>) -> Vec<u64> {
    let mut moments = Vec::new();
    while let Some(next) = table.next_due() {
        assert!(table.due(next - Duration::from_micros(1)).is_empty(), "nothing is due before its time");
        for event in table.due(next) {
            match event {
                ClientDue::Retransmit { flow, octets } => assert_eq!((flow, octets), (7, request())),
                ClientDue::TimedOut(context) => assert_eq!(context, "ctx"),
            }
            moments.push(u64::try_from(next.since(START).as_millis()).unwrap());
        }
    }
    moments
}

#[test]
fn copies_are_sent_as_timer_e_says() {
    let expected = [500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500, 32_000];
    assert_eq!(run(&mut started(false, 60_000)), expected, "64·T1 bounds every deadline");
    assert_eq!(run(&mut started(false, 7_000)), [500, 1500, 3500, 7000]);
    assert_eq!(run(&mut started(false, 500)), [500]);
    assert_eq!(run(&mut started(true, 7_000)), [7000], "a stream needs no copies");
}

#[test]
fn a_provisional_response_slows_the_copies_down() {
    let mut table = started(false, 12_000);
    assert_eq!(table.receive(at(100), "b1", "MESSAGE", 7, 100), Some(Outcome::Provisional(&"ctx")));
    assert_eq!(table.receive(at(200), "b1", "MESSAGE", 7, 183), Some(Outcome::Provisional(&"ctx")));
    assert_eq!(run(&mut table), [500, 4500, 8500, 12_000]);
}

#[test]
fn the_final_response_is_reported_once_and_its_copies_for_t4_not_at_all() {
    let mut table = started(false, 7_000);
    assert_eq!(table.receive(at(900), "b1", "MESSAGE", 7, 200), Some(Outcome::Final("ctx")));
    for status in [200, 486, 100] {
        assert_eq!(table.receive(at(1000), "b1", "MESSAGE", 7, status), None);
    }
    assert_eq!(table.start(at(1000), "b1", 7, false, request(), at(9000), "again"), Err(NotStarted::Duplicate));
    assert_eq!(table.next_due(), Some(at(5900)));
    assert_eq!(table.due(at(5900)), []);
    assert!(table.is_empty() && table.next_due().is_none());

    let mut reliable = started(true, 7_000);
    assert_eq!(reliable.receive(at(900), "b1", "MESSAGE", 7, 404), Some(Outcome::Final("ctx")));
    assert!(reliable.is_empty() && reliable.next_due().is_none());
}

#[test]
fn strangers_responses_are_dropped() {
    let mut table = started(false, 7_000);
    for (branch, method, flow) in
        [("b2", "MESSAGE", 7), ("b1", "NOTIFY", 7), ("b1", "message", 7), ("b1", "MESSAGE", 8)]
    {
        assert_eq!(table.receive(at(1), branch, method, flow, 200), None, "{branch} {method} {flow}");
    }
    assert_eq!(table.receive(at(1), "b1", "MESSAGE", 7, 200), Some(Outcome::Final("ctx")));
}

#[test]
fn a_standstill_makes_no_burst_of_copies() {
    let mut table = started(false, 30_000);
    let events = table.due(at(10_000));
    assert_eq!(events, [ClientDue::Retransmit { flow: 7, octets: request() }]);
    assert_eq!(table.next_due(), Some(at(11_000)));
    assert_eq!(table.due(at(40_000)), [ClientDue::TimedOut("ctx")]);
}

#[test]
fn a_closed_flow_gives_its_contexts_back() {
    let mut table = ClientTransactions::new(10);
    for (branch, flow, reliable) in [("a", 7, true), ("b", 8, true), ("c", 7, false), ("d", 7, false)] {
        table.start(at(0), branch, flow, reliable, request(), at(7000), branch).unwrap();
    }
    table.receive(at(1), "d", "MESSAGE", 7, 200).unwrap();
    assert_eq!(table.flow_closed(7), ["a", "c"], "the one that has its answer is not heard of again");
    assert_eq!((table.len(), table.flow_closed(7)), (1, vec![]));
    assert_eq!(table.receive(at(2), "a", "MESSAGE", 7, 200), None);
    assert_eq!(table.receive(at(2), "b", "MESSAGE", 8, 200), Some(Outcome::Final("b")));
}

#[test]
fn a_full_table_starts_nothing() {
    let mut table = ClientTransactions::new(1);
    table.start(at(0), "a", 7, true, request(), at(7000), ()).unwrap();
    assert_eq!(table.start(at(0), "b", 7, true, request(), at(7000), ()), Err(NotStarted::Full));
    table.receive(at(1), "a", "MESSAGE", 7, 200);
    assert_eq!(table.start(at(2), "b", 7, true, request(), at(7000), ()), Ok(()));
}

/// What happens to the table.
#[derive(Clone, Debug)]
enum Step {
    Start(u8, u8, bool, u64),
    Receive(u8, u8, u16),
    Close(u8),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..20, 0_u8..4, any::<bool>(), 0_u64..40_000)
            .prop_map(|(branch, flow, reliable, deadline)| Step::Start(branch, flow, reliable, deadline)),
        3 => (0_u8..20, 0_u8..4, prop_oneof![Just(100), Just(200), Just(480)])
            .prop_map(|(branch, flow, status)| Step::Receive(branch, flow, status)),
        1 => (0_u8..4).prop_map(Step::Close),
        4 => (0_u64..3_000).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Each context comes back exactly once: with its answer, its timeout, or its flow; and no later than its deadline.
    #[test]
    fn every_context_comes_back_once(steps in prop::collection::vec(step(), 1..300)) {
        let (mut table, mut now, mut next) = (ClientTransactions::<u8, usize>::new(12), START, 0);
        // By number: flow, latest end, whether it is still out.
        let mut out: Vec<(u8, Moment, bool)> = Vec::new();
        for step in steps {
            match step {
                Step::Start(branch, flow, reliable, deadline) => {
                    let deadline = now + Duration::from_millis(deadline);
                    let started = table.start(now, &branch.to_string(), flow, reliable, request(), deadline, next);
                    if started.is_ok() {
                        out.push((flow, deadline.min(now + T1_64), true));
                        next += 1;
                    }
                }
                Step::Receive(branch, flow, status) => {
                    match table.receive(now, &branch.to_string(), "MESSAGE", flow, status) {
                        Some(Outcome::Final(number)) => {
                            prop_assert!(status >= 200 && out[number].0 == flow);
                            prop_assert!(std::mem::replace(&mut out[number].2, false));
                        }
                        Some(Outcome::Provisional(number)) => {
                            prop_assert!(status < 200 && out[*number].0 == flow && out[*number].2);
                        }
                        None => {}
                    }
                }
                Step::Close(flow) => {
                    for number in table.flow_closed(flow) {
                        prop_assert_eq!(out[number].0, flow);
                        prop_assert!(std::mem::replace(&mut out[number].2, false));
                    }
                    prop_assert!(out.iter().all(|(of, _, waiting)| *of != flow || !waiting));
                }
                Step::Pass(millis) => {
                    now = now + Duration::from_millis(millis);
                    for event in table.due(now) {
                        if let ClientDue::TimedOut(number) = event {
                            prop_assert!(out[number].1 <= now);
                            prop_assert!(std::mem::replace(&mut out[number].2, false));
                        }
                    }
                    prop_assert!(out.iter().all(|(_, deadline, waiting)| !waiting || *deadline > now));
                }
            }
            prop_assert!(table.len() <= 12);
            prop_assert_eq!(table.is_empty(), table.next_due().is_none());
            prop_assert_eq!((table.by_branch.len(), table.by_flow.len()), (table.len(), table.len()));
            prop_assert!(table.timers.held() <= most_held(table.len()), "deadlines leak");
        }
        table.due(now + T1_64);
        table.due(now + Duration::from_secs(70));
        prop_assert!(table.is_empty() && table.timers.held() == 0);
    }
}
