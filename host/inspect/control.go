package inspect

import (
	"fmt"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// control prints a message of the control topics (PROTOCOL.md §2.6).
func (p *printer) control(t wire.Type, b []byte) error {
	with := func(print func(), err error) error {
		if err == nil {
			p.title("%s, %d bytes", t, len(b))
			print()
			p.field("signature", "present; verified by nodes, not here")
		}
		return err
	}
	switch t {
	case wire.TypeCredential:
		m, err := wire.ParseCredential(b)
		return with(func() { p.credential(m) }, err)
	case wire.TypeAuthorityState:
		m, err := wire.ParseAuthorityState(b)
		return with(func() { p.authority(m) }, err)
	case wire.TypePrekeyBundle:
		m, err := wire.ParsePrekeyBundle(b)
		return with(func() { p.bundle(m) }, err)
	case wire.TypeEpochGrant:
		m, err := wire.ParseGrant(b)
		return with(func() { p.grant(m) }, err)
	case wire.TypeKeyShare:
		m, err := wire.ParseKeyShare(b)
		return with(func() { p.share(m) }, err)
	case wire.TypeEpochRequest:
		m, err := wire.ParseEpochRequest(b)
		return with(func() { p.request(m) }, err)
	case wire.TypeRenewal:
		m, err := wire.ParseRenewal(b)
		return with(func() { p.renewal(m) }, err)
	}
	return fmt.Errorf("control message of %s", t)
}

func (p *printer) credential(c *wire.Credential) {
	p.field("realm", "%s", c.Realm)
	p.field("node", "%s", c.Node)
	p.field("serial", "%s, lineage %d", c.Serial, c.Lineage)
	p.field("subject", "%s", c.Subject)
	p.field("valid", "%s to %s", ms(c.NotBefore), ms(c.NotAfter))
	if c.DataNotBefore > 0 {
		p.field("data from", "%s", ms(c.DataNotBefore))
	}
	p.field("offline", "%s", time.Duration(c.OfflineAllow)*time.Second)
	p.field("roles", "%s", c.Roles)
	p.field("topics", "%s", list(c.Topics, "none"))
	p.field("groups", "%s", list(c.Groups, "none"))
	p.field("issuer", "%s", c.Issuer)
}

func (p *printer) authority(m *wire.AuthorityState) {
	p.field("realm", "%s", m.Realm)
	p.field("seq", "%d", m.Seq)
	p.field("issued", "%s", ms(m.Issued))
	p.field("next update", "%s", ms(m.NextUpdate))
	p.field("previous", "%s", m.Prev)
	p.field("digest", "%s", m.Digest())
	for _, r := range m.Revoked {
		p.field("revoked", "%s, at %s", r.Serial, ms(r.At))
	}
	if len(m.Revoked) == 0 {
		p.field("revoked", "none")
	}
	p.field("issuer", "%s", m.Issuer)
}

func (p *printer) bundle(m *wire.PrekeyBundle) {
	p.field("realm", "%s", m.Realm)
	p.field("node", "%s", m.Node)
	p.field("credential", "%s", m.Credential)
	p.field("generation", "%d", m.Generation)
	p.field("created", "%s", ms(m.Created))
	p.field("not after", "%s", ms(m.NotAfter))
	p.field("interest", "%s", list(m.Interest, "all topics of the credential"))
	p.field("prekey", "%s (X-Wing, %d bytes)", wire.PrekeyIDOf(m.KEMPub[:]), len(m.KEMPub))
}

func (p *printer) grant(g *wire.Grant) {
	p.header(&g.Header, g.Partition)
	for _, wrap := range g.Wraps {
		p.field("wrap", "for node %s, prekey %s", wrap.Node, wrap.Prekey)
	}
}

// header prints what a producer signed of an epoch.
func (p *printer) header(h *wire.GrantHeader, part uint8) {
	p.field("part", "%d of %d", part, keyring.GrantPartitions)
	p.field("realm", "%s", h.Realm)
	p.field("producer", "%s", h.Producer)
	p.field("credential", "%s", h.Credential)
	p.field("instance", "%s", h.Instance)
	p.field("epoch", "%d", h.Epoch)
	p.field("start", "%s", ms(h.Start))
	p.field("use by", "%s", ms(h.UseBy))
	p.field("flags", "0x%04x%s", uint16(h.Flags), flag(h.Flags&wire.GrantArchive != 0, ": archive"))
	p.field("authority seq", "%d", h.AuthoritySeq)
	p.field("roster digest", "%s", h.RosterDigest)
	p.field("previous", "%s", h.Prev)
	p.field("digest", "%s", h.Digest())
	for _, topic := range h.Topics {
		p.field("topic", "%s, commit %s, kid %x", topic.Name, topic.Commit, keyring.KidOf(topic.Commit))
	}
}

func (p *printer) share(m *wire.KeyShare) {
	p.field("sharer", "%s", m.Sharer)
	p.field("credential", "%s", m.Credential)
	p.field("recipient", "%s, prekey %s", m.Recipient, m.Prekey)
	p.field("topic", "%s, kid %x", m.Topic, keyring.KidOf(m.Commit()))
	p.header(&m.Proof.Header, m.Proof.Partition)
}

func (p *printer) request(m *wire.EpochRequest) {
	p.field("realm", "%s", m.Realm)
	p.field("node", "%s", m.Node)
	p.field("credential", "%s", m.Credential)
	p.field("group", "%s", m.Group)
	p.field("created", "%s", ms(m.Created))
	for _, kid := range m.Kids {
		p.field("kid", "%x", kid)
	}
}

func (p *printer) renewal(m *wire.Renewal) {
	p.field("realm", "%s", m.Realm)
	p.field("node", "%s", m.Node)
	p.field("credential", "%s, which is renewed", m.Credential)
	p.field("subject", "%s, the new identity key", m.Subject)
}

// kafkaKey prints the Kafka key of a control record (PROTOCOL.md §2.6), and reports whether b
// is one. Of an enrolment the value is a Noise message, which says nothing without its keys.
func (p *printer) kafkaKey(b []byte) bool {
	if k, err := wire.ParseEnrolmentKey(b); err == nil {
		p.title("Kafka key of an Enrolment message; its value is one Noise message")
		p.field("ticket", "%x", k.Ticket[:])
		p.field("attempt", "%x", k.Attempt[:])
		p.field("message", "%d of %d: %s", k.Step, wire.EnrolmentSteps, enrolmentSteps[k.Step-1])
		return true
	}
	return false
}

// enrolmentSteps are the messages in their order (PROTOCOL.md §2.12).
var enrolmentSteps = [wire.EnrolmentSteps]string{
	"the node's handshake", "the issuer's handshake", "the node's request", "the issuer's credential",
}
