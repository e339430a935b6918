//! Entries of every kind through the mapping.

use super::*;
use proptest::prelude::*;

const GUID: &str = "0123456789abcdef";

fn mapper(change: impl FnOnce(&mut Mapping)) -> Mapper {
    let mut mapping = Mapping::default();
    change(&mut mapping);
    Mapper::new(&mapping, &["example.com".to_owned(), "example.org".to_owned()])
}

fn entry(attributes: &[(&str, &[&str])]) -> Entry {
    let mut entry = Entry::new("CN=x", attributes);
    entry.add("objectGUID", vec![GUID.into()]);
    entry
}

fn found(attributes: &[(&str, &[&str])]) -> Found {
    mapper(|_| ()).map(&entry(attributes)).unwrap()
}

fn address(attributes: &[(&str, &[&str])]) -> Result<String, Option<String>> {
    match found(attributes).address {
        Wanted::Address(address) => Ok(address),
        Wanted::Unusable(problem) => Err(Some(problem)),
        Wanted::Nothing => Err(None),
    }
}

#[test]
fn the_first_source_that_gives_an_address_counts() {
    let primary = ("msRTCSIP-PrimaryUserAddress", &["sip:Alice@Example.com"][..]);
    let proxy = ("proxyAddresses", &["SMTP:x@example.com", "sip:b@example.com", "SIP:c@example.com"][..]);
    let mail = ("mail", &["d@example.org"][..]);
    assert_eq!(address(&[mail, proxy, primary]).unwrap(), "alice@example.com");
    assert_eq!(address(&[mail, proxy]).unwrap(), "c@example.com");
    assert_eq!(address(&[mail]).unwrap(), "d@example.org");
    assert_eq!(address(&[("cn", &["x"])]), Err(None));
}

#[test]
fn proxy_addresses_are_taken_in_an_order_of_their_own() {
    let proxies = |values: &[&str]| address(&[("PROXYADDRESSES", values)]);
    assert_eq!(proxies(&["sip:z@example.com", "Sip:a@example.com"]).unwrap(), "a@example.com");
    assert_eq!(proxies(&["sip:a@example.com", "SIP:z@example.com"]).unwrap(), "z@example.com");
    assert_eq!(proxies(&["SIP:z@elsewhere.example", "sip:a@example.com"]).unwrap(), "a@example.com");
    assert_eq!(proxies(&["SMTP:a@example.com", "x500:/o=a"]), Err(None));
}

#[test]
fn what_cannot_be_used_is_named_with_its_reason() {
    let problem = |name: &str, value: &str| address(&[(name, &[value])]).unwrap_err();
    let primary = "msRTCSIP-PrimaryUserAddress";
    let foreign = problem(primary, "sip:a@elsewhere.example").unwrap();
    assert_eq!(
        foreign,
        "msRTCSIP-PrimaryUserAddress `sip:a@elsewhere.example` is in elsewhere.example, which is no domain of the pool"
    );
    for bad in ["sip:", "alice", "sip:a b@example.com", "sip:a\0@example.com", "tel:+1", "sip:a@b@example.com", "@"] {
        assert!(problem(primary, bad).is_some(), "{bad:?}");
    }
    assert!(problem(primary, &format!("sip:{}@example.com", "a".repeat(600))).unwrap().contains("is too long"));
    assert!(problem(primary, &format!("sip:{}@example.com", "a".repeat(65))).unwrap().contains("64 octets"));
    let shown = problem(primary, "sip:a\r\n\u{202e}b@example.com").unwrap();
    assert!(!shown.contains(['\r', '\n', '\u{202e}']), "{shown}");
    assert_eq!(problem("mail", "a@elsewhere.example"), None);
    assert!(problem("mail", "no address").is_some());
}

#[test]
fn a_bad_value_does_not_hide_a_good_one() {
    let attributes: &[(&str, &[&str])] =
        &[("msRTCSIP-PrimaryUserAddress", &["nonsense"]), ("mail", &["alice@example.com"])];
    assert_eq!(address(attributes).unwrap(), "alice@example.com");
}

#[test]
fn binary_values_are_no_text() {
    let mut odd = entry(&[("cn", &["Ada"])]);
    odd.add("msRTCSIP-PrimaryUserAddress", vec![vec![0xff, 0xfe]]);
    odd.add("displayName", vec![vec![0xff], vec![0xc3, 0x28]]);
    odd.add("title", vec![vec![0, 1, 2]]);
    let found = mapper(|_| ()).map(&odd).unwrap();
    assert_eq!(found.address, Wanted::Unusable("msRTCSIP-PrimaryUserAddress is not UTF-8".to_owned()));
    assert_eq!((found.display_name.as_str(), found.card.title.as_str()), ("Ada", ""));
}

#[test]
fn templates() {
    let template = |template: &str, attributes: &[(&str, &[&str])]| {
        mapper(|mapping| mapping.sip_address = vec![template.to_owned()]).map(&entry(attributes)).unwrap().address
    };
    let ok = |address: &str| Wanted::Address(address.to_owned());
    assert_eq!(template("{uid}@example.com", &[("UID", &["Ada"])]), ok("ada@example.com"));
    assert_eq!(template("{sn}.{gn}@example.com", &[("sn", &["b", "a"]), ("gn", &["c"])]), ok("a.c@example.com"));
    assert_eq!(template("{sn}.{gn}@example.com", &[("sn", &["b"])]), Wanted::Nothing);
    for hostile in ["a@elsewhere.example", "a%40b", "a:b", "a b", "", "\0"] {
        let wanted = template("{uid}@example.com", &[("uid", &[hostile])]);
        assert!(!matches!(wanted, Wanted::Address(_)), "{hostile:?} {wanted:?}");
    }
}

#[test]
fn who_may_sign_in() {
    let control = |values: &[&str]| found(&[("userAccountControl", values)]).enabled;
    assert_eq!(control(&["512"]), Verdict::Yes);
    assert_eq!(control(&["514"]), Verdict::No);
    assert_eq!(control(&[]), Verdict::Unsaid, "an account that is not shown to be on");
    assert_eq!(control(&["lots"]), Verdict::Unsaid);
    let word = |values: &[&str]| {
        let mapper = mapper(|mapping| mapping.enabled.attribute = "msRTCSIP-UserEnabled".to_owned());
        mapper.map(&entry(&[("msrtcsip-userenabled", values), ("userAccountControl", &["512"])])).unwrap().enabled
    };
    let own_key = mapper(|mapping| mapping.key = "employeeNumber".to_owned());
    assert_eq!(own_key.map(&entry(&[("employeeNumber", &["7"])])).unwrap().enabled, Verdict::Unsaid);
    assert!(own_key.attributes().contains(&"objectGUID".to_owned()));
    assert_eq!(word(&["TRUE"]), Verdict::Yes);
    assert_eq!(word(&["true"]), Verdict::Yes);
    assert_eq!(word(&["FALSE"]), Verdict::No);
    assert_eq!(word(&["TRUE", "FALSE"]), Verdict::No);
    assert_eq!(word(&["maybe"]), Verdict::Unsaid);
    assert_eq!(word(&[]), Verdict::Unsaid);
    let elsewhere = Entry::new("uid=x", &[("entryUUID", &["0102030A-0b0c-0d0e-0f10-111213141516"])]);
    assert_eq!(mapper(|_| ()).map(&elsewhere).unwrap().enabled, Verdict::Yes, "no Active Directory has such");
    let off = mapper(|mapping| mapping.enabled.account_control = false);
    assert_eq!(off.map(&entry(&[])).unwrap().enabled, Verdict::Yes);
    assert_eq!(off.map(&entry(&[("userAccountControl", &["2"])])).unwrap().enabled, Verdict::Yes);
    assert!(!off.attributes().contains(&"userAccountControl".to_owned()));
}

#[test]
fn keys() {
    let default = mapper(|_| ());
    let key = |mapper: &Mapper, name: &str, values: Vec<Vec<u8>>| {
        let mut entry = Entry::default();
        entry.add(name, values);
        mapper.key(&entry)
    };
    assert_eq!(key(&default, "ObjectGuid", vec![vec![0xff; 16]]), Some(Key128([0xff; 16])));
    assert_eq!(key(&default, "objectGUID", vec![vec![1; 15]]), None);
    assert_eq!(key(&default, "objectGUID", vec![vec![1; 16], vec![2; 16]]), None);
    let uuid = b"0102030A-0b0c-0d0e-0f10-111213141516";
    let expected = [1, 2, 3, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22];
    assert_eq!(key(&default, "entryUUID", vec![uuid.to_vec()]), Some(Key128(expected)));
    for bad in ["", "0102030a0b0c0d0e0f10111213141516", "0102030g-0b0c-0d0e-0f10-111213141516"] {
        assert_eq!(key(&default, "entryUUID", vec![bad.into()]), None, "{bad}");
    }
    let own = mapper(|mapping| mapping.key = "employeeNumber".to_owned());
    let (one, two) =
        (key(&own, "employeenumber", vec![b"1".to_vec()]), key(&own, "employeenumber", vec![b"2".to_vec()]));
    assert!(one.is_some() && one != two && own.keys_may_repeat() && !default.keys_may_repeat());
    assert_eq!(key(&own, "objectGUID", vec![vec![1; 16]]), None);
}

#[test]
fn what_is_asked_for_is_asked_for_once() {
    let mapper = mapper(|mapping| {
        mapping.sip_address = vec!["{uid}.{UID}@example.com".to_owned(), "mail".to_owned()];
        mapping.display_name = vec!["uid".to_owned()];
        mapping.phone = String::new();
    });
    let expected = ["objectGUID", "entryUUID", "uid", "mail", "title", "company", "physicalDeliveryOfficeName"];
    let mut asked = mapper.attributes();
    assert_eq!(asked.pop().as_deref(), Some("userAccountControl"));
    assert_eq!(asked, expected);
}

#[test]
fn the_fingerprint_is_of_name_and_card() {
    let one = found(&[("cn", &["Ada"]), ("title", &["Dr"])]);
    assert_eq!(one.fingerprint, found(&[("title", &["Dr"]), ("CN", &["Ada"]), ("sn", &["x"])]).fingerprint);
    assert_ne!(one.fingerprint, found(&[("cn", &["Ada"]), ("company", &["Dr"])]).fingerprint);
    assert_ne!(one.fingerprint, found(&[("cn", &["AdaD"]), ("title", &["r"])]).fingerprint);
}

proptest! {
    #[test]
    fn whatever_an_entry_holds_is_within_the_store_s_bounds(
        values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..700), 0..4),
        name in "mail|cn|title|proxyAddresses|userAccountControl|msRTCSIP-PrimaryUserAddress",
        text in "\\PC{0,300}",
    ) {
        let mut entry = entry(&[(&name, &[&text])]);
        entry.add(&name, values);
        let found = mapper(|_| ()).map(&entry).unwrap();
        prop_assert!(found.display_name.len() <= 256 && found.card.title.len() <= 256 && found.dn.len() <= 256);
        if let Wanted::Address(address) = found.address {
            let parsed: Address = address.parse().unwrap();
            prop_assert_eq!(parsed.as_str(), address.as_str());
        }
    }
}
