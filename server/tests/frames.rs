//! Frames between front ends: every one reads back as it was written, and no octets make the reader fall over.

use std::net::SocketAddr;

use bytes::Bytes;
use commpool_model::ids::{EndpointId, Home, Incarnation, Key128, Micros, UserId, UserRef, Version};
use commpool_model::presence::{Availability, Device, Facts, Publication, Source, State};
use commpool_server::peers::frame::{
    Ack, Answer, Changed, Class, Deliver, Disowned, Fate, Frame, HandOver, Hello, LONGEST, Moved, Ping, Said, Told,
};
use commpool_sip::otid::Otid;
use proptest::collection::vec;
use proptest::prelude::*;

fn bytes(most: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..most).prop_map(Bytes::from)
}

fn otid() -> impl Strategy<Value = Otid> {
    any::<[u8; 16]>().prop_map(Otid)
}

fn endpoint() -> impl Strategy<Value = EndpointId> {
    any::<u64>().prop_map(EndpointId)
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    any::<u32>().prop_map(Incarnation)
}

fn remote() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![any::<([u8; 4], u16)>().prop_map(SocketAddr::from), any::<([u16; 8], u16)>().prop_map(SocketAddr::from),]
}

fn hello() -> impl Strategy<Value = Hello> {
    let class = prop_oneof![Just(Class::Calls), Just(Class::Bulk)];
    (".*", incarnation(), incarnation(), ".*", any::<(u16, u16)>(), class)
        .prop_map(|(pool, from, to, build, protocol, class)| Hello { pool, from, to, build, protocol, class })
}

fn deliver() -> impl Strategy<Value = Deliver> {
    (otid(), endpoint(), ".*", remote(), ".*", vec(".*", 0..4), any::<u32>(), bytes(2000)).prop_map(
        |(otid, endpoint, caller, source, contact, path, patience, request)| Deliver {
            otid,
            endpoint,
            caller,
            source,
            contact,
            path,
            patience,
            request,
        },
    )
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        Just(Fate::Written),
        Just(Fate::Parked),
        incarnation().prop_map(Fate::Moved),
        Just(Fate::Gone),
        Just(Fate::Busy),
        Just(Fate::TooLarge),
    ]
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![bytes(500).prop_map(Said::Response), any::<u16>().prop_map(Said::Before), Just(Said::Nothing)]
}

fn state() -> impl Strategy<Value = State> {
    use Availability as A;
    let source = prop_oneof![Just(Source::Automatic), Just(Source::Manual)];
    let all = [A::Closed, A::SignedIn, A::Away, A::BeRightBack, A::DoNotDisturb, A::Busy, A::Available];
    let availability = prop::sample::select(all.to_vec());
    (source, availability, vec(".*", 0..3), prop::option::of(".*"))
        .prop_map(|(source, availability, activities, note)| State { source, availability, activities, note })
}

fn publication() -> impl Strategy<Value = Publication> {
    let document = vec(any::<u8>(), 0..500);
    (any::<[u8; 16]>(), prop::option::of(endpoint()), state(), document, any::<(u64, u64)>()).prop_map(
        |(id, endpoint, state, document, (updated, since))| Publication {
            id: Key128(id),
            endpoint,
            state,
            document,
            updated: Micros(updated),
            since: Micros(since),
        },
    )
}

fn changed() -> impl Strategy<Value = Changed> {
    let device = (endpoint(), any::<u64>()).prop_map(|(id, at)| Device { id, registered: Micros(at) });
    let facts = (vec(publication(), 0..3), vec(device, 0..3))
        .prop_map(|(publications, devices)| Facts { publications, devices });
    (0_i32..100, any::<u64>(), any::<u64>(), facts).prop_map(|(home, id, version, state)| Changed {
        user: UserRef { home: Home(home), id: UserId(id) },
        version: Version(version),
        state,
    })
}

fn hand_over() -> impl Strategy<Value = HandOver> {
    let told = any::<([u8; 16], u32, u64)>().prop_map(|(id, cseq, document)| Told { id: Key128(id), cseq, document });
    (endpoint(), vec(told, 0..5), vec((otid(), any::<u16>()), 0..5))
        .prop_map(|(endpoint, dialogs, delivered)| HandOver { endpoint, dialogs, delivered })
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        hello().prop_map(Frame::Hello),
        deliver().prop_map(|deliver| Frame::Deliver(Box::new(deliver))),
        (otid(), endpoint(), fate()).prop_map(|(otid, endpoint, fate)| Frame::Ack(Ack { otid, endpoint, fate })),
        (otid(), endpoint(), said()).prop_map(|(otid, endpoint, said)| Frame::Answer(Answer { otid, endpoint, said })),
        (remote(), bytes(500)).prop_map(|(remote, octets)| Frame::Response { remote, octets }),
        vec(changed(), 0..4).prop_map(Frame::Presence),
        (endpoint(), ".*", any::<u32>()).prop_map(|(endpoint, call_id, cseq)| Frame::Moved(Moved {
            endpoint,
            call_id,
            cseq
        })),
        hand_over().prop_map(Frame::HandOver),
        endpoint().prop_map(Frame::Unbound),
        any::<([u8; 16], u32)>().prop_map(|(id, cseq)| Frame::Disowned(Disowned { id: Key128(id), cseq })),
        vec(remote(), 0..5).prop_map(Frame::SeenHere),
        (remote(), bytes(500)).prop_map(|(remote, octets)| Frame::Emit { remote, octets }),
        any::<u32>().prop_map(|renewed| Frame::Ping(Ping { renewed })),
    ]
}

/// The frame behind its length, which must be right.
fn behind_length(frame: &Frame) -> Bytes {
    let octets = frame.encode();
    let (length, rest) = octets.split_first_chunk::<4>().unwrap();
    assert_eq!(u32::from_be_bytes(*length) as usize, rest.len());
    assert!(rest.len() <= LONGEST);
    octets.slice(4..)
}

proptest! {
    #[test]
    fn a_frame_reads_back_as_it_was_written(frame in frame()) {
        prop_assert_eq!(Frame::decode(behind_length(&frame)).unwrap(), Some(frame));
    }

    #[test]
    fn any_octets_are_read_or_refused(octets in bytes(300)) {
        let _ = Frame::decode(octets);
    }

    #[test]
    fn a_frame_with_a_wrong_octet_is_read_or_refused(frame in frame(), at in any::<prop::sample::Index>(), octet: u8) {
        let mut octets = behind_length(&frame).to_vec();
        let at = at.index(octets.len());
        octets[at] = octet;
        let _ = Frame::decode(octets.into());
    }

    /// A later build may add a field that an older one skips, and a frame that it passes over.
    #[test]
    fn what_is_new_and_optional_is_skipped(frame in frame(), tag in 0x80_u8.., value in vec(any::<u8>(), 0..20)) {
        let mut octets = behind_length(&frame).to_vec();
        octets.push(tag);
        octets.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        octets.extend(value);
        prop_assert_eq!(Frame::decode(octets.into()).unwrap(), Some(frame));
        prop_assert_eq!(Frame::decode(Bytes::from_static(&[200, 1, 2, 3])), Ok(None));
    }
}
