//! Documents of the shape that real clients send.

/// Linphone: a generated id, contact with priority, person with one activity, a note on the service.
pub(super) const LINPHONE: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="no" ?>
<p:presence xmlns:p1="urn:ietf:params:xml:ns:pidf:data-model" xmlns:p2="urn:ietf:params:xml:ns:pidf:rpid"
  xmlns:p="urn:ietf:params:xml:ns:pidf" entity="sip:alice@example.org">
  <p:tuple id="k7yx_e">
    <p:status><p:basic>open</p:basic></p:status>
    <p:contact priority="0.8">sip:alice@example.org;gr=urn:uuid:1</p:contact>
    <p:timestamp>2026-11-24T08:00:00Z</p:timestamp>
  </p:tuple>
  <p1:person id="z0q">
    <p2:activities><p2:on-the-phone/><p2:busy></p2:busy></p2:activities>
    <p1:timestamp>2026-11-24T08:00:01Z</p1:timestamp>
  </p1:person>
  <p:note xml:lang="de">Bin gleich da</p:note>
</p:presence>
"#;

/// PJSIP: everything in one line per element, the same words as a note of the person.
pub(super) const PJSIP: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<presence entity="sip:bob@example.org" xmlns="urn:ietf:params:xml:ns:pidf" xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model" xmlns:rpid="urn:ietf:params:xml:ns:pidf:rpid">
 <tuple id="pj0a1b2c">
  <status><basic>open</basic></status>
  <contact>sip:bob@192.0.2.9:5060;ob</contact>
 </tuple>
 <dm:person id="pj3d4e5f"><rpid:activities><rpid:away/></rpid:activities><dm:note>Out for lunch &amp; coffee</dm:note></dm:person>
</presence>
"#;

/// baresip before it knows its state: `unknown`, and a person without activity.
pub(super) const BARESIP: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"no\"?>\r\n\
    <presence xmlns=\"urn:ietf:params:xml:ns:pidf\"\r\n    xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\"\r\n\
    \x20   xmlns:rpid=\"urn:ietf:params:xml:ns:pidf:rpid\"\r\n    entity=\"sip:carol@example.org\">\r\n\
    \x20 <dm:person id=\"p1001\"><rpid:activities/></dm:person>\r\n\
    \x20 <tuple id=\"t1002\">\r\n    <status>\r\n      <basic>unknown</basic>\r\n    </status>\r\n\
    \x20   <contact>sip:carol@example.org</contact>\r\n  </tuple>\r\n</presence>\r\n";

/// A page on SIP.js: written by hand, without declaration, white space and contact.
pub(super) const SIP_JS: &str = "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='sip:dave@example.org'>\
    <tuple id='web'><status><basic> closed </basic></status><note><![CDATA[<gone> home]]></note></tuple></presence>";
