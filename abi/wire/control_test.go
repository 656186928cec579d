package wire

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// fill puts distinct bytes into fixed arrays.
func fill(b []byte, start byte) {
	for i := range b {
		b[i] = start + byte(i)
	}
}

func sampleCredential() *Credential {
	c := &Credential{
		Lineage: 3, NotBefore: 1000, NotAfter: 2000, DataNotBefore: 500, OfflineAllow: 7,
		Roles:  RoleProduce | RoleConsume,
		Topics: []Pattern{{Name: "orders"}, {Prefix: true, Name: "eu."}, {Prefix: true}},
		Groups: []Pattern{{Name: "billing"}},
	}
	fill(c.Realm[:], 1)
	fill(c.Node[:], 20)
	fill(c.Serial[:], 40)
	fill(c.Subject[:], 60)
	fill(c.Issuer[:], 100)
	fill(c.Signature[:], 140)
	return c
}

func sampleBundle() *PrekeyBundle {
	p := &PrekeyBundle{Generation: 9, Created: 10, NotAfter: 11, Interest: []Pattern{{Name: "a"}}}
	fill(p.Realm[:], 1)
	fill(p.Node[:], 2)
	fill(p.Credential[:], 3)
	fill(p.KEMPub[:], 4)
	fill(p.Signature[:], 5)
	return p
}

func sampleGrant() *Grant {
	g := &Grant{Partition: 5, Header: GrantHeader{
		Epoch: 7, Start: 100, UseBy: 200, Flags: GrantArchive, AuthoritySeq: 4,
		Topics: []GrantTopic{{Name: "a"}, {Name: "b", Commit: Digest{1}}},
	}}
	fill(g.Header.Instance[:], 9)
	fill(g.Signature[:], 11)
	g.Wraps = make([]Wrap, 2)
	g.Wraps[0].Node[3], g.Wraps[1].Node[3] = 0x15, 0x15 // of partition 5
	g.Wraps[1].Node[15] = 1
	fill(g.Wraps[1].HPKE[:], 1)
	return g
}

func sampleCSR() *CSR {
	c := &CSR{OfflineAllow: 5, Roles: RoleConsume, Topics: []Pattern{{Name: "t"}}, Groups: []Pattern{{Prefix: true, Name: "g"}}}
	fill(c.Subject[:], 1)
	fill(c.Signature[:], 2)
	return c
}

func sampleAuthorityState() *AuthorityState {
	a := &AuthorityState{Seq: 4, Issued: 100, NextUpdate: 200, Revoked: []Revocation{{Serial{1}, 50}, {Serial{2}, 60}}}
	fill(a.Realm[:], 1)
	fill(a.Prev[:], 2)
	fill(a.Issuer[:], 3)
	fill(a.Signature[:], 4)
	return a
}

func sampleKeyShare() *KeyShare {
	g := sampleGrant()
	g.Header.Topics[0].Commit[0] = 9
	k := &KeyShare{Proof: g.Proof(), Topic: "b"}
	fill(k.Sharer[:], 1)
	fill(k.Recipient[:], 2)
	fill(k.HPKE[:], 3)
	fill(k.Signature[:], 4)
	return k
}

func sampleEpochRequest() *EpochRequest {
	q := &EpochRequest{Group: "billing", Created: 77, Kids: [][KidSize]byte{{1}, {2}}}
	fill(q.Realm[:], 1)
	fill(q.Node[:], 2)
	fill(q.Credential[:], 3)
	fill(q.Signature[:], 4)
	return q
}

func sampleRenewal() *Renewal {
	n := &Renewal{}
	fill(n.Realm[:], 1)
	fill(n.Node[:], 2)
	fill(n.Credential[:], 3)
	fill(n.Subject[:], 4)
	fill(n.OldKey[:], 5)
	fill(n.NewKey[:], 6)
	return n
}

func sampleEnrolmentKey() EnrolmentKey {
	return EnrolmentKey{Ticket: TicketID{1, 2}, Attempt: Attempt{3}, Step: 2}
}

func sampleTicket() *Ticket {
	t := &Ticket{NotAfter: 9, OfflineAllow: 8, Roles: RoleConsume | RoleShare, Topics: []Pattern{{Name: "t"}}, Groups: []Pattern{{Name: "g"}}}
	fill(t.ID[:], 1)
	fill(t.PSK[:], 2)
	fill(t.Static[:], 3)
	fill(t.Root[:], 4)
	return t
}

// message is what every layout of this package offers.
type message interface {
	Append([]byte) []byte
}

// layouts gives each control message and its parser.
var layouts = []struct {
	name  string
	value message
	parse func([]byte) (message, error)
}{
	{"credential", sampleCredential(), func(b []byte) (message, error) { return ParseCredential(b) }},
	{"bundle", sampleBundle(), func(b []byte) (message, error) { return ParsePrekeyBundle(b) }},
	{"grant", sampleGrant(), func(b []byte) (message, error) { return ParseGrant(b) }},
	{"authority state", sampleAuthorityState(), func(b []byte) (message, error) { return ParseAuthorityState(b) }},
	{"key share", sampleKeyShare(), func(b []byte) (message, error) { return ParseKeyShare(b) }},
	{"epoch request", sampleEpochRequest(), func(b []byte) (message, error) { return ParseEpochRequest(b) }},
	{"renewal", sampleRenewal(), func(b []byte) (message, error) { return ParseRenewal(b) }},
	{"enrolment key", sampleEnrolmentKey(), func(b []byte) (message, error) { return ParseEnrolmentKey(b) }},
	{"csr", sampleCSR(), func(b []byte) (message, error) { return ParseCSR(b) }},
	{"ticket", sampleTicket(), func(b []byte) (message, error) { return ParseTicket(b) }},
}

func TestParseAfterAppendIsTheIdentity(t *testing.T) {
	for _, l := range layouts {
		got, err := l.parse(l.value.Append(nil))
		if err != nil {
			t.Fatalf("%s: %v", l.name, err)
		}
		if !reflect.DeepEqual(got, l.value) {
			t.Errorf("%s: got %+v, want %+v", l.name, got, l.value)
		}
	}
}

func TestAppendKeepsWhatWasThere(t *testing.T) {
	for _, l := range layouts {
		if got := l.value.Append([]byte("x")); !bytes.Equal(got[1:], l.value.Append(nil)) || got[0] != 'x' {
			t.Errorf("%s: Append depends on what is before it", l.name)
		}
	}
}

func TestEveryTruncationAndExtensionIsRefused(t *testing.T) {
	for _, l := range layouts {
		b := l.value.Append(nil)
		for n := range b {
			if _, err := l.parse(b[:n]); !errors.Is(err, ErrMalformed) {
				t.Fatalf("%s cut to %d of %d bytes: %v", l.name, n, len(b), err)
			}
		}
		if _, err := l.parse(append(b, 0)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s with a byte after it: %v", l.name, err)
		}
	}
}

func TestForeignVersionTypeAndSuiteAreRefused(t *testing.T) {
	for _, l := range layouts[:7] {
		for i := range 3 {
			b := l.value.Append(nil)
			b[i]++
			if _, err := l.parse(b); err == nil {
				t.Errorf("%s: byte %d changed and accepted", l.name, i)
			}
		}
	}
}

func TestWhatIsOutOfBoundsIsRefused(t *testing.T) {
	for name, change := range map[string]func(c *Credential){
		"unknown role":          func(c *Credential) { c.Roles |= 64 },
		"ends before it starts": func(c *Credential) { c.NotAfter = c.NotBefore - 1 },
		"empty exact pattern":   func(c *Credential) { c.Topics[0].Name = "" },
		"long pattern":          func(c *Credential) { c.Topics[0].Name = strings.Repeat("x", MaxNameLen+1) },
		"over 4 KiB":            func(c *Credential) { c.Groups = bigPatterns() },
	} {
		c := sampleCredential()
		change(c)
		if _, err := ParseCredential(c.Append(nil)); !errors.Is(err, ErrMalformed) {
			t.Errorf("credential, %s: %v", name, err)
		}
	}
	for name, change := range map[string]func(g *Grant){
		"no topics":           func(g *Grant) { g.Header.Topics = nil },
		"topics out of order": func(g *Grant) { g.Header.Topics[0].Name = "c" },
		"topic twice":         func(g *Grant) { g.Header.Topics[0].Name = "b" },
		"topic without name":  func(g *Grant) { g.Header.Topics[0].Name = "" },
		"unknown flag":        func(g *Grant) { g.Header.Flags = 2 },
		"ends at its start":   func(g *Grant) { g.Header.UseBy = g.Header.Start },
		"wraps out of order":  func(g *Grant) { g.Wraps[0].Node[0] = 1 },
		"recipient twice":     func(g *Grant) { g.Wraps[1].Node[15] = 0 },
		"partition 16":        func(g *Grant) { g.Partition, g.Wraps = 16, nil },
		"wrap elsewhere":      func(g *Grant) { g.Wraps[0].Node[3] = 0x14 },
		"513 topics":          func(g *Grant) { g.Header.Topics = manyTopics(513) },
	} {
		g := sampleGrant()
		change(g)
		if _, err := ParseGrant(g.Append(nil)); !errors.Is(err, ErrMalformed) {
			t.Errorf("grant, %s: %v", name, err)
		}
	}
	g := sampleGrant()
	g.Header.Topics = manyTopics(MaxTopics)
	if _, err := ParseGrant(g.Append(nil)); err != nil {
		t.Errorf("a grant of %d topics: %v", MaxTopics, err)
	}
	for name, change := range map[string]func(a *AuthorityState){
		"seq 0":                    func(a *AuthorityState) { a.Seq = 0 },
		"seq above issued":         func(a *AuthorityState) { a.Seq = a.Issued + 1 },
		"ends before it starts":    func(a *AuthorityState) { a.NextUpdate = a.Issued - 1 },
		"revocations out of order": func(a *AuthorityState) { a.Revoked[0].Serial = Serial{3} },
		"revoked twice":            func(a *AuthorityState) { a.Revoked[0].Serial = Serial{2} },
		"16,385 revocations":       func(a *AuthorityState) { a.Revoked = manyRevoked(MaxRevoked + 1) },
	} {
		a := sampleAuthorityState()
		change(a)
		if _, err := ParseAuthorityState(a.Append(nil)); !errors.Is(err, ErrMalformed) {
			t.Errorf("authority state, %s: %v", name, err)
		}
	}
	a := sampleAuthorityState()
	a.Revoked = manyRevoked(MaxRevoked)
	if _, err := ParseAuthorityState(a.Append(nil)); err != nil {
		t.Errorf("%d revocations: %v", MaxRevoked, err)
	}
	for name, change := range map[string]func(k *KeyShare){
		"another realm":               func(k *KeyShare) { k.Realm[0]++ },
		"topic that the header lacks": func(k *KeyShare) { k.Topic = "c" },
	} {
		k := sampleKeyShare()
		change(k)
		if _, err := ParseKeyShare(k.Append(nil)); !errors.Is(err, ErrMalformed) {
			t.Errorf("key share, %s: %v", name, err)
		}
	}
	for name, change := range map[string]func(q *EpochRequest){
		"no group":          func(q *EpochRequest) { q.Group = "" },
		"no kid":            func(q *EpochRequest) { q.Kids = nil },
		"kids out of order": func(q *EpochRequest) { q.Kids[0] = [KidSize]byte{3} },
		"kid twice":         func(q *EpochRequest) { q.Kids[0] = q.Kids[1] },
		"257 kids":          func(q *EpochRequest) { q.Kids = manyKids(MaxRequested + 1) },
	} {
		q := sampleEpochRequest()
		change(q)
		if _, err := ParseEpochRequest(q.Append(nil)); !errors.Is(err, ErrMalformed) {
			t.Errorf("epoch request, %s: %v", name, err)
		}
	}
	for _, step := range []uint8{0, EnrolmentSteps + 1} {
		k := sampleEnrolmentKey()
		k.Step = step
		if _, err := ParseEnrolmentKey(k.Append(nil)); !errors.Is(err, ErrMalformed) {
			t.Errorf("enrolment key, step %d: %v", step, err)
		}
	}
	p := sampleBundle()
	p.NotAfter = p.Created - 1
	if _, err := ParsePrekeyBundle(p.Append(nil)); !errors.Is(err, ErrMalformed) {
		t.Errorf("bundle that ends before it starts: %v", err)
	}
}

func manyRevoked(n int) []Revocation {
	out := make([]Revocation, n)
	for i := range out {
		out[i].Serial = Serial{byte(i >> 8), byte(i)}
	}
	return out
}

func manyKids(n int) [][KidSize]byte {
	out := make([][KidSize]byte, n)
	for i := range out {
		out[i] = [KidSize]byte{byte(i >> 8), byte(i)}
	}
	return out
}

func bigPatterns() []Pattern {
	out := make([]Pattern, 40)
	for i := range out {
		out[i] = Pattern{Name: strings.Repeat("g", 100)}
	}
	return out
}

func manyTopics(n int) []GrantTopic {
	out := make([]GrantTopic, n)
	for i := range out {
		out[i].Name = string([]byte{'t', byte('0' + i/100), byte('0' + i/10%10), byte('0' + i%10)})
	}
	return out
}

// TestChangedWrapIsRefused: the signature does not cover WRAPS itself, its digest does.
func TestChangedWrapIsRefused(t *testing.T) {
	b := sampleGrant().Append(nil)
	b[len(b)-1] ^= 1
	if _, err := ParseGrant(b); !errors.Is(err, ErrMalformed) {
		t.Errorf("got %v", err)
	}
}

func TestKeysNameTypeAndSubject(t *testing.T) {
	c, p, g := sampleCredential(), sampleBundle(), sampleGrant()
	for _, tt := range []struct {
		key  []byte
		want []byte
	}{
		{c.Key(), bytes.Join([][]byte{{1}, c.Node[:], c.Serial[:]}, nil)},
		{p.Key(), bytes.Join([][]byte{{3}, p.Node[:]}, nil)},
		{sampleAuthorityState().Key(), append([]byte{2}, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)},
		{KeyShareKey([8]byte{7}, c.Node), bytes.Join([][]byte{{5, 7, 0, 0, 0, 0, 0, 0, 0}, c.Node[:]}, nil)},
		{sampleEpochRequest().Key(), append([]byte{6}, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17)},
		{sampleRenewal().Key(), append([]byte{9}, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17)},
		{g.Header.Key(), bytes.Join([][]byte{{4}, g.Header.Instance[:], {0, 0, 0, 7}}, nil)},
	} {
		if !bytes.Equal(tt.key, tt.want) {
			t.Errorf("key %x, want %x", tt.key, tt.want)
		}
	}
}

func TestSignatureInputBindsTypeRealmAndLength(t *testing.T) {
	got := SignatureInput(TypeEpochGrant, RealmID{0: 0xAA}, []byte("body"))
	want := append([]byte("KX1 sig v1\x00\x04\xaa"), make([]byte, 15)...)
	want = append(want, 0, 0, 0, 4, 'b', 'o', 'd', 'y')
	if !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

func TestPatternsReadAsTheyAreWritten(t *testing.T) {
	for s, match := range map[string][2]string{
		"orders":  {"orders", "orders2"},
		"orders*": {"orders2", "order"},
		"*":       {"", ""},
	} {
		p, err := ParsePattern(s)
		if err != nil || p.String() != s || !p.Match(match[0]) || match[1] != "" && p.Match(match[1]) {
			t.Errorf("%q: %v %v", s, p, err)
		}
	}
	for _, s := range []string{"", "a*b", "**", "*a", strings.Repeat("x", MaxNameLen+1)} {
		if p, err := ParsePattern(s); err == nil {
			t.Errorf("%q became %v", s, p)
		}
	}
}

// fuzz asserts that what parses encodes to the same bytes, so that there is one encoding
// per meaning.
func fuzz(f *testing.F, i int) {
	l := layouts[i]
	f.Add(l.value.Append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		m, err := l.parse(b)
		if !bytes.Equal(b, before) {
			t.Fatal("the input was changed")
		}
		if err == nil && !bytes.Equal(m.Append(nil), b) {
			t.Fatalf("%x encodes as %x", b, m.Append(nil))
		}
	})
}

func FuzzCredential(f *testing.F)     { fuzz(f, 0) }
func FuzzPrekeyBundle(f *testing.F)   { fuzz(f, 1) }
func FuzzGrant(f *testing.F)          { fuzz(f, 2) }
func FuzzAuthorityState(f *testing.F) { fuzz(f, 3) }
func FuzzKeyShare(f *testing.F)       { fuzz(f, 4) }
func FuzzEpochRequest(f *testing.F)   { fuzz(f, 5) }
func FuzzRenewal(f *testing.F)        { fuzz(f, 6) }
func FuzzEnrolmentKey(f *testing.F)   { fuzz(f, 7) }
func FuzzCSR(f *testing.F)            { fuzz(f, 8) }
func FuzzTicket(f *testing.F)         { fuzz(f, 9) }
