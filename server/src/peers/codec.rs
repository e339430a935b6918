//! How frames between front ends stand on the wire.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use commpool_model::ids::{EndpointId, Home, Incarnation, Key128, Micros, UserId, UserRef, Version};
use commpool_model::presence::{Availability, Device, Facts, Publication, Source, State};
use commpool_sip::otid::Otid;

use super::frame::{
    Ack, Answer, Changed, Class, Deliver, Disowned, Fate, Frame, HandOver, Hello, MOST, Moved, Ping, Said, Told,
};
use super::wire::{Fields, Unreadable, Writer, narrow, number, text};

impl Frame {
    /// The frame as it stands on the wire: length of what follows, kind, fields.
    pub fn encode(&self) -> Bytes {
        let mut fields = Writer::default();
        self.write(&mut fields);
        let fields = fields.finish();
        let mut octets = BytesMut::with_capacity(5 + fields.len());
        octets.put_u32(u32::try_from(fields.len() + 1).unwrap_or(u32::MAX));
        octets.put_u8(self.kind());
        octets.put_slice(&fields);
        octets.freeze()
    }

    fn write(&self, w: &mut Writer) {
        match self {
            Self::Hello(hello) => write_hello(w, hello),
            Self::Deliver(deliver) => write_deliver(w, deliver),
            Self::Ack(ack) => write_ack(w, ack),
            Self::Answer(answer) => write_answer(w, answer),
            Self::Response { remote, octets } | Self::Emit { remote, octets } => {
                w.text(1, &remote.to_string());
                w.octets(2, octets);
            }
            Self::Presence(changes) => changes.iter().for_each(|c| w.group(1, |w| write_changed(w, c))),
            Self::Moved(moved) => {
                w.number(1, moved.endpoint.0);
                w.text(2, &moved.call_id);
                w.number(3, u64::from(moved.cseq));
            }
            Self::HandOver(hand_over) => write_hand_over(w, hand_over),
            Self::Unbound(endpoint) => w.number(1, endpoint.0),
            Self::Disowned(disowned) => {
                w.octets(1, &disowned.id.0);
                w.number(2, u64::from(disowned.cseq));
            }
            Self::SeenHere(addresses) => addresses.iter().for_each(|a| w.text(1, &a.to_string())),
            Self::Ping(ping) => w.number(1, u64::from(ping.renewed)),
        }
    }

    /// Reads a frame behind its length. `None`: a kind that a later build has.
    pub fn decode(mut octets: Bytes) -> Result<Option<Self>, Unreadable> {
        if octets.is_empty() {
            return Err(Unreadable::Cut);
        }
        let kind = octets.split_to(1);
        let kind = kind.first().copied().unwrap_or(0);
        Ok(Some(match kind {
            1 => Self::Hello(read_hello(octets)?),
            2 => Self::Deliver(Box::new(read_deliver(octets)?)),
            3 => Self::Ack(read_ack(octets)?),
            4 => Self::Answer(read_answer(octets)?),
            5 | 12 => {
                let fields = Fields::read(octets, &[1, 2])?;
                let (remote, octets) = (address(&fields.octets(1)?)?, fields.octets(2)?);
                if kind == 5 { Self::Response { remote, octets } } else { Self::Emit { remote, octets } }
            }
            6 => Self::Presence(list(octets, read_changed)?),
            7 => Self::Moved(read_moved(octets)?),
            8 => Self::HandOver(read_hand_over(octets)?),
            9 => Self::Unbound(EndpointId(Fields::read(octets, &[1])?.number(1)?)),
            10 => Self::Disowned(read_disowned(octets)?),
            11 => Self::SeenHere(list(octets, |o| address(&o))?),
            13 => Self::Ping(Ping { renewed: narrow(Fields::read(octets, &[1])?.number(1)?)? }),
            _ => return Ok(None),
        }))
    }
}

/// The values of tag 1, each read; at most [`MOST`].
fn list<T>(octets: Bytes, read: impl Fn(Bytes) -> Result<T, Unreadable>) -> Result<Vec<T>, Unreadable> {
    let fields = Fields::read(octets, &[1])?;
    let items: Vec<T> = fields.all(1).map(read).collect::<Result<_, _>>()?;
    if items.len() > MOST { Err(Unreadable::Range) } else { Ok(items) }
}

fn address(value: &[u8]) -> Result<SocketAddr, Unreadable> {
    text(value)?.parse().map_err(|_| Unreadable::Range)
}

fn write_hello(w: &mut Writer, hello: &Hello) {
    w.text(1, &hello.pool);
    w.number(2, u64::from(hello.from.0));
    w.number(3, u64::from(hello.to.0));
    w.text(4, &hello.build);
    w.number(5, u64::from(hello.protocol.0));
    w.number(6, u64::from(hello.protocol.1));
    w.number(7, u64::from(hello.class == Class::Bulk));
}

fn read_hello(octets: Bytes) -> Result<Hello, Unreadable> {
    let f = Fields::read(octets, &[1, 2, 3, 4, 5, 6, 7])?;
    Ok(Hello {
        pool: f.text(1)?,
        from: Incarnation(narrow(f.number(2)?)?),
        to: Incarnation(narrow(f.number(3)?)?),
        build: f.text(4)?,
        protocol: (narrow(f.number(5)?)?, narrow(f.number(6)?)?),
        class: if f.number(7)? == 0 { Class::Calls } else { Class::Bulk },
    })
}

fn write_deliver(w: &mut Writer, deliver: &Deliver) {
    w.octets(1, &deliver.otid.0);
    w.number(2, deliver.endpoint.0);
    w.text(3, &deliver.caller);
    w.text(4, &deliver.source.to_string());
    w.text(5, &deliver.contact);
    deliver.path.iter().for_each(|path| w.text(6, path));
    w.number(7, u64::from(deliver.patience));
    w.octets(8, &deliver.request);
}

fn read_deliver(octets: Bytes) -> Result<Deliver, Unreadable> {
    let f = Fields::read(octets, &[1, 2, 3, 4, 5, 6, 7, 8])?;
    Ok(Deliver {
        otid: Otid(f.key(1)?),
        endpoint: EndpointId(f.number(2)?),
        caller: f.text(3)?,
        source: address(&f.octets(4)?)?,
        contact: f.text(5)?,
        path: f.all(6).map(|p| text(&p)).collect::<Result<_, _>>()?,
        patience: narrow(f.number(7)?)?,
        request: f.octets(8)?,
    })
}

fn write_ack(w: &mut Writer, ack: &Ack) {
    w.octets(1, &ack.otid.0);
    w.number(2, ack.endpoint.0);
    let (fate, fe) = match ack.fate {
        Fate::Written => (1, 0),
        Fate::Parked => (2, 0),
        Fate::Moved(fe) => (3, fe.0),
        Fate::Gone => (4, 0),
        Fate::Busy => (5, 0),
        Fate::TooLarge => (6, 0),
    };
    w.number(3, fate);
    w.number(4, u64::from(fe));
}

fn read_ack(octets: Bytes) -> Result<Ack, Unreadable> {
    let f = Fields::read(octets, &[1, 2, 3, 4])?;
    let fate = match f.number(3)? {
        1 => Fate::Written,
        2 => Fate::Parked,
        3 => Fate::Moved(Incarnation(narrow(f.number(4)?)?)),
        4 => Fate::Gone,
        5 => Fate::Busy,
        6 => Fate::TooLarge,
        _ => return Err(Unreadable::Range),
    };
    Ok(Ack { otid: Otid(f.key(1)?), endpoint: EndpointId(f.number(2)?), fate })
}

fn write_answer(w: &mut Writer, answer: &Answer) {
    w.octets(1, &answer.otid.0);
    w.number(2, answer.endpoint.0);
    match &answer.said {
        Said::Response(octets) => w.octets(3, octets),
        Said::Before(status) => w.number(4, u64::from(*status)),
        Said::Nothing => {}
    }
}

fn read_answer(octets: Bytes) -> Result<Answer, Unreadable> {
    let f = Fields::read(octets, &[1, 2, 3, 4])?;
    let said = match (f.maybe(3), f.maybe(4)) {
        (Some(octets), _) => Said::Response(octets),
        (None, Some(status)) => Said::Before(narrow(number(&status)?)?),
        (None, None) => Said::Nothing,
    };
    Ok(Answer { otid: Otid(f.key(1)?), endpoint: EndpointId(f.number(2)?), said })
}

fn write_changed(w: &mut Writer, changed: &Changed) {
    w.number(1, u64::from(changed.user.home.0.unsigned_abs()));
    w.number(2, changed.user.id.0);
    w.number(3, changed.version.0);
    changed.state.publications.iter().for_each(|p| w.group(4, |w| write_publication(w, p)));
    for device in &changed.state.devices {
        w.group(5, |w| {
            w.number(1, device.id.0);
            w.number(2, device.registered.0);
        });
    }
}

fn read_changed(octets: Bytes) -> Result<Changed, Unreadable> {
    let f = Fields::read(octets, &[1, 2, 3, 4, 5])?;
    let device = |o: Bytes| {
        let f = Fields::read(o, &[1, 2])?;
        Ok(Device { id: EndpointId(f.number(1)?), registered: Micros(f.number(2)?) })
    };
    Ok(Changed {
        user: UserRef { home: Home(narrow(f.number(1)?)?), id: UserId(f.number(2)?) },
        version: Version(f.number(3)?),
        state: Facts {
            publications: f.all(4).map(read_publication).collect::<Result<_, _>>()?,
            devices: f.all(5).map(device).collect::<Result<_, _>>()?,
        },
    })
}

fn write_publication(w: &mut Writer, publication: &Publication) {
    w.octets(1, &publication.id.0);
    if let Some(endpoint) = publication.endpoint {
        w.number(2, endpoint.0);
    }
    w.number(3, publication.state.source as u64);
    w.number(4, publication.state.availability as u64);
    publication.state.activities.iter().for_each(|a| w.text(5, a));
    if let Some(note) = &publication.state.note {
        w.text(6, note);
    }
    w.octets(7, &publication.document);
    w.number(8, publication.updated.0);
    w.number(9, publication.since.0);
}

fn read_publication(octets: Bytes) -> Result<Publication, Unreadable> {
    let f = Fields::read(octets, &[1, 2, 3, 4, 5, 6, 7, 8, 9])?;
    let state = State {
        source: source(f.number(3)?)?,
        availability: availability(f.number(4)?)?,
        activities: f.all(5).map(|a| text(&a)).collect::<Result<_, _>>()?,
        note: f.maybe(6).map(|n| text(&n)).transpose()?,
    };
    Ok(Publication {
        id: Key128(f.key(1)?),
        endpoint: f.maybe(2).map(|e| number(&e)).transpose()?.map(EndpointId),
        state,
        document: f.octets(7)?.to_vec(),
        updated: Micros(f.number(8)?),
        since: Micros(f.number(9)?),
    })
}

fn source(value: u64) -> Result<Source, Unreadable> {
    [Source::Automatic, Source::Manual].into_iter().find(|s| *s as u64 == value).ok_or(Unreadable::Range)
}

fn availability(value: u64) -> Result<Availability, Unreadable> {
    use Availability as A;
    let all = [A::Closed, A::SignedIn, A::Away, A::BeRightBack, A::DoNotDisturb, A::Busy, A::Available];
    all.into_iter().find(|a| *a as u64 == value).ok_or(Unreadable::Range)
}

fn read_disowned(octets: Bytes) -> Result<Disowned, Unreadable> {
    let f = Fields::read(octets, &[1, 2])?;
    Ok(Disowned { id: Key128(f.key(1)?), cseq: narrow(f.number(2)?)? })
}

fn read_moved(octets: Bytes) -> Result<Moved, Unreadable> {
    let f = Fields::read(octets, &[1, 2, 3])?;
    Ok(Moved { endpoint: EndpointId(f.number(1)?), call_id: f.text(2)?, cseq: narrow(f.number(3)?)? })
}

fn write_hand_over(w: &mut Writer, hand_over: &HandOver) {
    w.number(1, hand_over.endpoint.0);
    for told in &hand_over.dialogs {
        w.group(2, |w| {
            w.octets(1, &told.id.0);
            w.number(2, u64::from(told.cseq));
            w.number(3, told.document);
        });
    }
    for (otid, status) in &hand_over.delivered {
        w.group(3, |w| {
            w.octets(1, &otid.0);
            w.number(2, u64::from(*status));
        });
    }
}

fn read_hand_over(octets: Bytes) -> Result<HandOver, Unreadable> {
    let f = Fields::read(octets, &[1, 2, 3])?;
    let delivered = |o: Bytes| {
        let f = Fields::read(o, &[1, 2])?;
        Ok((Otid(f.key(1)?), narrow(f.number(2)?)?))
    };
    let hand_over = HandOver {
        endpoint: EndpointId(f.number(1)?),
        dialogs: f.all(2).map(read_told).collect::<Result<_, _>>()?,
        delivered: f.all(3).map(delivered).collect::<Result<_, _>>()?,
    };
    let fits = hand_over.dialogs.len() <= MOST && hand_over.delivered.len() <= MOST;
    if fits { Ok(hand_over) } else { Err(Unreadable::Range) }
}

fn read_told(octets: Bytes) -> Result<Told, Unreadable> {
    let f = Fields::read(octets, &[1, 2, 3])?;
    Ok(Told { id: Key128(f.key(1)?), cseq: narrow(f.number(2)?)?, document: f.number(3)? })
}
