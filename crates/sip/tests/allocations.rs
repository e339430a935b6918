//! How often reading and writing a message asks for memory.

use bytes::Bytes;
use commpool_sip::{Contacts, Forward, Limits, Message, Response};

const SAMPLES: [&[u8]; 5] = [
    include_bytes!("samples/register.sip"),
    include_bytes!("samples/message.sip"),
    include_bytes!("samples/subscribe.sip"),
    include_bytes!("samples/notify.sip"),
    include_bytes!("samples/response.sip"),
];

fn allocations(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).count_total
}

#[test]
fn reading_with_the_usual_fields_takes_at_most_four() {
    for sample in SAMPLES {
        // As a transport hands it over: octets of its own.
        let octets = Bytes::from(sample.to_vec());
        let count = allocations(|| {
            let message = Message::parse_datagram(octets, &Limits::default()).unwrap();
            assert!(message.top_via().is_ok() && message.from().is_ok() && message.to().is_ok());
            assert!(message.call_id().is_ok() && message.cseq().is_ok());
            assert!(matches!(message.contacts(), Ok(Contacts::List(_))));
        });
        assert!(count <= 4, "{count} allocations");
    }
}

#[test]
fn writing_takes_one_buffer_and_little_more() {
    for sample in SAMPLES {
        let message = Message::parse_datagram(Bytes::from_static(sample), &Limits::default()).unwrap();
        let forward = allocations(|| {
            drop(Forward::request(&message).via("SIP/2.0/TLS p;branch=z9hG4bK1").max_forwards(69).build())
        });
        assert!(forward <= 7, "{forward} allocations to forward");
        let answer = allocations(|| drop(Response::to(&message, 200).to_tag("t").build()));
        assert!(answer <= 2, "{answer} allocations to answer");
    }
}
