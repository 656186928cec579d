package inspect

import (
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// file prints an armoured file: a request, a credential chain, or a private key, of which
// only the public half is shown.
func (p *printer) file(kind string, b []byte) (bool, error) {
	switch {
	case strings.Contains(kind, "PRIVATE"):
		p.title("%s: holds a secret, which is not shown", kind)
		block, _ := pem.Decode(b)
		p.field("size", "%d bytes", len(block.Bytes))
		clear(block.Bytes)
	case strings.HasSuffix(kind, "REQUEST"):
		csr, err := keyring.ParseCSR(b)
		if err != nil {
			return true, err
		}
		p.title("%s, signature verified", kind)
		p.field("node", "%s", wire.NodeIDOf(csr.Subject))
		p.field("subject", "%s", csr.Subject)
		p.field("offline", "%s", time.Duration(csr.OfflineAllow)*time.Second)
		p.field("roles", "%s", csr.Roles)
		p.field("topics", "%s", list(csr.Topics, "none"))
		p.field("groups", "%s", list(csr.Groups, "none"))
	case strings.HasSuffix(kind, "CREDENTIAL"):
		root, chain, err := keyring.ParseCredentialFile(b)
		if err != nil {
			return true, err
		}
		p.title("%s, chain verified", kind)
		p.field("realm root", "%s", root)
		for _, c := range chain {
			p.title("Credential")
			p.credential(c)
		}
	default:
		return false, nil
	}
	return true, nil
}

// ticket prints a ticket's line without its key.
func (p *printer) ticket(b []byte) error {
	t, err := keyring.ParseTicket(b)
	if err != nil {
		return err
	}
	defer t.Wipe()
	p.title("enrolment ticket: holds a secret, which is not shown")
	p.field("ticket", "%x", t.ID[:])
	p.field("realm", "%s", wire.RealmIDOf(t.Root))
	p.field("realm root", "%s", t.Root)
	p.field("issuer", "%x (X25519)", t.Static)
	p.field("not after", "%s", ms(t.NotAfter))
	p.field("offline", "%s", time.Duration(t.OfflineAllow)*time.Second)
	p.field("roles", "%s", t.Roles)
	p.field("topics", "%s", list(t.Topics, "none"))
	p.field("groups", "%s", list(t.Groups, "none"))
	return nil
}

// book prints an issuer's book without its secrets.
func (p *printer) book(raw []byte) error {
	b, err := keyring.ParseBook(raw)
	if err != nil {
		return err
	}
	defer b.Wipe()
	p.title("issuer's book: holds secrets, which are not shown")
	if a := b.Authority(); a != nil {
		p.field("authority", "state %d, %d revoked, good until %s", a.Seq, len(a.Revoked), ms(a.NextUpdate))
	}
	for _, t := range b.Tickets() {
		use := "waits until " + ms(uint64(t.NotAfter.UnixMilli()))
		if t.Burnt {
			use = "used by node " + t.Node.String()
		}
		p.field("ticket", "%v: %s on %s, groups %s; %s", t.ID, t.Roles, list(t.Topics, "none"), list(t.Groups, "none"), use)
	}
	return nil
}

// state prints a state file without its secrets.
func (p *printer) state(b []byte) error {
	s, err := keyring.ParseState(b)
	if err != nil {
		return err
	}
	defer s.Wipe()
	v := s.View()
	p.title("node state: holds secrets, which are not shown")
	p.field("realm", "%s", v.Realm)
	p.field("node", "%s", v.Node)
	if v.Credential == nil {
		p.field("credential", "none yet")
	} else {
		p.field("valid until", "%s", ms(v.Credential.NotAfter))
		p.field("roles", "%s", v.Credential.Roles)
		p.field("topics", "%s", list(v.Credential.Topics, "none"))
		p.field("groups", "%s", list(v.Credential.Groups, "none"))
	}
	if v.Renewal != nil {
		p.field("renewal", "under way: of credential %s, to identity key %s", v.Renewal.Credential, v.Renewal.Subject)
	}
	p.field("authority", "%s", authoritySeen(&v))
	p.field("first bundle", "%s", orNone(v.FirstBundle))
	p.field("grants read", "%s", flag(v.GrantsNext < 0, "none yet")+flag(v.GrantsNext >= 0, fmt.Sprintf("below offset %d of the own partition", v.GrantsNext)))
	for _, k := range v.Prekeys {
		p.field("prekey", "%s, generation %d, created %s%s", k.ID, k.Generation, k.Created.UTC().Format("15:04:05.000Z"), flag(k.Superseded, ", superseded"))
	}
	for _, k := range v.Kids {
		p.field("topic secret", "%s, kid %x, epoch %d of instance %s, %s to %s%s%s", k.Topic, k.Kid, k.Epoch, k.Instance,
			k.Start.UTC().Format("15:04:05Z"), k.UseBy.UTC().Format("15:04:05Z"), flag(k.Source >= 0, fmt.Sprintf(", granted at offset %d", k.Source)), flag(k.Past, ", consumed"))
	}
	p.field("erased", "%d topic secrets in the life of this state, %d remembered", v.ErasedTotal, v.ErasedKids)
	p.field("marks", "of %d nodes: their highest lineage and generation", v.Marks)
	return nil
}

func authoritySeen(v *keyring.View) string {
	if v.AuthoritySeq == 0 {
		return "no AuthorityState seen"
	}
	return fmt.Sprintf("AuthorityState seq %d seen, digest %s", v.AuthoritySeq, v.AuthorityDigest)
}

func orNone(t time.Time) string {
	if t.IsZero() {
		return "none yet"
	}
	return ms(uint64(t.UnixMilli()))
}
