package filter

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	mathrand "math/rand"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// trySeal seals in a roomy buffer and checks that a refused batch stays as it was.
func trySeal(t *testing.T, f *Filter, b []byte, topic string, partition int32, now uint64) (abi.Result, abi.Status) {
	t.Helper()
	buf := append(bytes.Clone(b), make([]byte, 1000)...)
	r, s := f.SealBatch(buf, len(b), []byte(topic), partition, now)
	if s != abi.StatusOK && !bytes.Equal(buf[:len(b)], b) {
		t.Errorf("%v: the refused batch changed", s)
	}
	return r, s
}

func TestNothingWorksBeforeConfigure(t *testing.T) {
	f := New(rand.Reader)
	b := clientBatch(t, 0, 1, 1)
	_, sealed := trySeal(t, f, b, testTopic, 0, testNow)
	_, _, opened := open(f, b, testTopic, 0)
	for name, s := range map[string]abi.Status{
		"seal": sealed, "open": opened, "erase": f.Erase(nil),
		"lease": f.InstallLease(&abi.Lease{Topic: "t"}), "root": f.InstallRoot(&abi.Root{Topic: "t"}),
	} {
		if s != abi.StatusNotConfigured {
			t.Errorf("%s: %v", name, s)
		}
	}
}

func TestPolicyDecidesByTopic(t *testing.T) {
	f := newFilter(t, abi.Rule{Prefix: true, Pattern: "plain.", Mode: abi.ModePlain}, abi.Rule{Pattern: "plain.not", Mode: abi.ModeEncrypted})
	b := clientBatch(t, 0, 2, 5)
	sealed := seal(t, f, b, 0)
	for _, tt := range []struct {
		topic      string
		seal, open abi.Status
		untouched  uint32
	}{
		{"plain.a", abi.StatusOK, abi.StatusOK, abi.FlagUntouched},
		{"plain.not", abi.StatusNeedLease, abi.StatusPlaintext, 0},
		{"unheard of", abi.StatusNeedLease, abi.StatusPlaintext, 0},
		{"_e2ee.roster", abi.StatusForbidden, abi.StatusOK, 0},
		{"_e2ee.", abi.StatusForbidden, abi.StatusOK, 0},
		{"_e2eeroster", abi.StatusNeedLease, abi.StatusPlaintext, 0},
	} {
		r, s := trySeal(t, f, b, tt.topic, 0, testNow)
		if s != tt.seal || r.Flags != tt.untouched {
			t.Errorf("seal to %s: %v, %+v", tt.topic, s, r)
		}
		got, r, s := open(f, b, tt.topic, 0)
		if s != tt.open || s == abi.StatusOK && (r.Flags != abi.FlagUntouched || !bytes.Equal(got, b)) {
			t.Errorf("open from %s: %v, %+v", tt.topic, s, r)
		}
	}
	if got, _, s := open(f, sealed, "plain.a", 0); s != abi.StatusOK || !bytes.Equal(got, sealed) {
		t.Errorf("a sealed batch of a plain topic: %v", s)
	}
}

func TestUnsoundBatchesOfClientsAreRefused(t *testing.T) {
	f := newFilter(t)
	good := section(3, 5)
	edit := func(fn func(h *kafka.BatchHeader)) []byte {
		h := header(3)
		fn(&h)
		return batch(h, good)
	}
	old := edit(func(*kafka.BatchHeader) {})
	old[16] = 1
	corrupt := edit(func(*kafka.BatchHeader) {})
	corrupt[70] ^= 1
	two := append(edit(func(*kafka.BatchHeader) {}), edit(func(*kafka.BatchHeader) {})...)
	swapped := bytes.Clone(good)
	swapped[3] ^= 4 // the first record's offsetDelta
	for name, tt := range map[string]struct {
		b    []byte
		want abi.Status
	}{
		"sound":                       {edit(func(*kafka.BatchHeader) {}), abi.StatusOK},
		"nothing":                     {nil, abi.StatusMalformed},
		"less than a header":          {good[:16], abi.StatusMalformed},
		"old magic":                   {old, abi.StatusUnsupportedMagic},
		"wrong CRC":                   {corrupt, abi.StatusCorrupt},
		"two batches":                 {two, abi.StatusMalformed},
		"cut short":                   {old[:len(old)-1], abi.StatusUnsupportedMagic},
		"control":                     {edit(func(h *kafka.BatchHeader) { h.Attributes |= kafka.AttrControl }), abi.StatusMalformed},
		"unknown codec":               {edit(func(h *kafka.BatchHeader) { h.Attributes |= 7 }), abi.StatusUnsupportedCodec},
		"unknown attribute":           {edit(func(h *kafka.BatchHeader) { h.Attributes |= 0x100 }), abi.StatusMalformed},
		"no records":                  {edit(func(h *kafka.BatchHeader) { h.NumRecords, h.LastOffsetDelta = 0, -1 }), abi.StatusMalformed},
		"negative records":            {edit(func(h *kafka.BatchHeader) { h.NumRecords, h.LastOffsetDelta = -1, -2 }), abi.StatusMalformed},
		"another lastOffsetDelta":     {edit(func(h *kafka.BatchHeader) { h.LastOffsetDelta = 3 }), abi.StatusMalformed},
		"more records than there are": {edit(func(h *kafka.BatchHeader) { h.NumRecords, h.LastOffsetDelta = 4, 3 }), abi.StatusMalformed},
		"fewer":                       {edit(func(h *kafka.BatchHeader) { h.NumRecords, h.LastOffsetDelta = 2, 1 }), abi.StatusMalformed},
		"too many records": {edit(func(h *kafka.BatchHeader) {
			h.Attributes |= int16(kafka.CodecZstd)
			h.NumRecords, h.LastOffsetDelta = MaxRecords+1, MaxRecords
		}), abi.StatusTooLarge},
		"offsets out of order":   {batch(header(3), swapped), abi.StatusMalformed},
		"compressed and nothing": {batch(kafka.BatchHeader{Magic: 2, Attributes: 1, NumRecords: 1}, nil), abi.StatusMalformed},
	} {
		if _, s := trySeal(t, f, tt.b, testTopic, 0, testNow); s != tt.want {
			t.Errorf("%s: %v, want %v", name, s, tt.want)
		}
	}
}

func TestArgumentsOutOfRangeAreRefused(t *testing.T) {
	f := newFilter(t)
	b := clientBatch(t, 0, 1, 1)
	for name, call := range map[string]func() (abi.Result, abi.Status){
		"length beyond the buffer": func() (abi.Result, abi.Status) { return f.SealBatch(b, len(b)+1, []byte("t"), 0, 0) },
		"negative length":          func() (abi.Result, abi.Status) { return f.OpenBatch(b, -1, []byte("t"), 0) },
		"no topic":                 func() (abi.Result, abi.Status) { return f.SealBatch(b, len(b), nil, 0, 0) },
		"long topic":               func() (abi.Result, abi.Status) { return f.OpenBatch(b, len(b), make([]byte, 250), 0) },
		"negative partition":       func() (abi.Result, abi.Status) { return f.OpenBatch(b, len(b), []byte("t"), -1) },
	} {
		if _, s := call(); s != abi.StatusBadArgument {
			t.Errorf("%s: %v", name, s)
		}
	}
}

func TestAnExpiredLeaseIsErasedAndNotUsed(t *testing.T) {
	f := newFilter(t)
	b := clientBatch(t, 0, 1, 1)
	held := f.leases[testTopic][0]
	if _, s := trySeal(t, f, b, testTopic, 0, testNow+1000); s != abi.StatusOK {
		t.Errorf("at useBy: %v", s)
	}
	if _, s := trySeal(t, f, b, testTopic, 0, testNow+1001); s != abi.StatusNeedLease {
		t.Errorf("after useBy: %v", s)
	}
	if held.stack.Remaining() != 0 {
		t.Error("the expired lease still holds leaves")
	}
	if _, s := trySeal(t, f, b, testTopic, 0, testNow); s != abi.StatusNeedLease {
		t.Errorf("the clock went back: %v", s)
	}
}

func TestLeasesOfATopicAreUsedInTurn(t *testing.T) {
	f := New(rand.Reader)
	f.Configure(abi.Config{MaxDecompressed: 1 << 20})
	for i, start := range []uint32{4, 2, 8} {
		l := abi.Lease{Kid: abi.Kid{1}, UseBy: testNow, Start: start, Level: 23, Node: [32]byte{byte(i)}, Topic: testTopic}
		if s := f.InstallLease(&l); s != abi.StatusOK {
			t.Fatal(s)
		}
	}
	b := clientBatch(t, 0, 1, 1)
	for _, want := range []uint32{4, 5, 2, 3, 8, 9} {
		if r, s := trySeal(t, f, b, testTopic, 0, testNow); s != abi.StatusOK || r.Leaf != want {
			t.Errorf("%v, leaf %d, want %d", s, r.Leaf, want)
		}
	}
	if _, s := trySeal(t, f, b, testTopic, 0, testNow); s != abi.StatusNeedLease {
		t.Errorf("after the last leaf: %v", s)
	}
	if c := f.Counters(); c[abi.CounterLeases] != 0 || c[abi.CounterErased] != 3 || c[abi.CounterSealedBatches] != 6 {
		t.Errorf("counters %v", c)
	}
}

func TestALeafIsNeverLeasedTwice(t *testing.T) {
	f := New(rand.Reader)
	f.Configure(abi.Config{MaxDecompressed: 1 << 20})
	lease := func(kid byte, start uint32, level uint8) abi.Status {
		return f.InstallLease(&abi.Lease{Kid: abi.Kid{kid}, UseBy: testNow, Start: start, Level: level, Topic: testTopic})
	}
	for _, tt := range []struct {
		kid   byte
		start uint32
		level uint8
		want  abi.Status
	}{
		{1, 8, 22, abi.StatusOK}, {1, 8, 22, abi.StatusBadArgument}, {1, 0, 0, abi.StatusBadArgument}, {1, 11, 24, abi.StatusBadArgument},
		{1, 12, 22, abi.StatusOK}, {1, 4, 22, abi.StatusOK}, {2, 8, 22, abi.StatusOK},
		{1, 1, 23, abi.StatusBadArgument}, {1, 0, 25, abi.StatusBadArgument},
	} {
		if s := lease(tt.kid, tt.start, tt.level); s != tt.want {
			t.Errorf("kid %d, start %d, level %d: %v, want %v", tt.kid, tt.start, tt.level, s, tt.want)
		}
	}
}

func TestTheFirstRootOfAKidStays(t *testing.T) {
	f := newFilter(t)
	for name, tt := range map[string]struct {
		root abi.Root
		want abi.Status
	}{
		"the same":      {abi.Root{Kid: testKid, Root: testRoot, Topic: testTopic}, abi.StatusOK},
		"another root":  {abi.Root{Kid: testKid, Root: [32]byte{1}, Topic: testTopic}, abi.StatusBadArgument},
		"another topic": {abi.Root{Kid: testKid, Root: testRoot, Topic: "other"}, abi.StatusBadArgument},
	} {
		if s := f.InstallRoot(&tt.root); s != tt.want {
			t.Errorf("%s: %v, want %v", name, s, tt.want)
		}
	}
}

func TestKeysAreBounded(t *testing.T) {
	f := New(rand.Reader)
	f.Configure(abi.Config{MaxDecompressed: 1 << 20})
	for i := range MaxLeases + 1 {
		s := f.InstallLease(&abi.Lease{Kid: abi.Kid{byte(i), byte(i >> 8)}, Level: 24, Topic: "t"})
		if full := i == MaxLeases; full != (s == abi.StatusFull) {
			t.Fatalf("lease %d: %v", i, s)
		}
	}
	for i := range MaxRoots + 1 {
		s := f.InstallRoot(&abi.Root{Kid: abi.Kid{byte(i), byte(i >> 8), byte(i >> 16)}, Topic: "t"})
		if full := i == MaxRoots; full != (s == abi.StatusFull) {
			t.Fatalf("root %d: %v", i, s)
		}
	}
	if f.Erase(nil); f.Counters()[abi.CounterErased] != MaxLeases+MaxRoots {
		t.Errorf("erased %d", f.Counters()[abi.CounterErased])
	}
}

func TestErasedKeysAreGone(t *testing.T) {
	for name, kids := range map[string][]abi.Kid{"by kid": {testKid, {42}}, "all": nil} {
		f := newFilter(t)
		b := clientBatch(t, 0, 1, 1)
		sealed := seal(t, f, b, 0)
		if _, _, s := open(f, sealed, testTopic, 0); s != abi.StatusOK {
			t.Fatal(s)
		}
		held, lease, path := f.roots[testKid], f.leases[testTopic][0], f.pathOf(testKid)
		if s := f.Erase(kids); s != abi.StatusOK {
			t.Fatal(s)
		}
		if held.node != [32]byte{} || lease.stack.Remaining() != 0 || path.to.Seek(0, &f.leaf) {
			t.Errorf("%s: something of the keys is left", name)
		}
		if _, r, s := open(f, sealed, testTopic, 0); s != abi.StatusNeedRoot || r.Kid != testKid {
			t.Errorf("%s: open: %v, %+v", name, s, r)
		}
		if _, s := trySeal(t, f, b, testTopic, 0, testNow); s != abi.StatusNeedLease {
			t.Errorf("%s: seal: %v", name, s)
		}
	}
}

func TestErasingOneKidLeavesTheOthers(t *testing.T) {
	f := newFilter(t)
	sealed := seal(t, f, clientBatch(t, 0, 1, 1), 0)
	install(t, f, "other", abi.Kid{testKid[0], 9}, [32]byte{5}) // shares the path's place
	f.Erase([]abi.Kid{{testKid[0], 9}})
	if _, _, s := open(f, sealed, testTopic, 0); s != abi.StatusOK {
		t.Error(s)
	}
}

type constant struct{}

func (constant) Read(b []byte) (int, error) { clear(b); return len(b), nil }

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("no entropy") }

func TestWeakRandomSourcesAreRefused(t *testing.T) {
	skipped := func(n int64) io.Reader {
		r := mathrand.New(mathrand.NewSource(42))
		io.CopyN(io.Discard, r, n)
		return r
	}
	for name, random := range map[string]io.Reader{
		"constant": constant{}, "failing": failing{}, "wazero's default": skipped(0), "the same later": skipped(1234),
		"repeats": io.MultiReader(bytes.NewReader(bytes.Repeat([]byte("0123456789abcdef0123456789ABCDEF"), 2)), rand.Reader),
	} {
		f := New(random)
		if s := f.Configure(abi.Config{MaxDecompressed: 1}); s != abi.StatusWeakRandom || f.Ready() {
			t.Errorf("%s: %v", name, s)
		}
	}
}

func TestABadConfigurationLeavesTheEarlierOne(t *testing.T) {
	f := newFilter(t, abi.Rule{Pattern: "p", Mode: abi.ModePlain})
	if s := f.Configure(abi.Config{}); s != abi.StatusBadArgument {
		t.Errorf("no cap on decompression: %v", s)
	}
	if !f.plain([]byte("p")) {
		t.Error("the earlier policy is gone")
	}
}

func TestCountersCount(t *testing.T) {
	f := newFilter(t)
	b := clientBatch(t, 0, 3, 5)
	sealed := seal(t, f, b, 0)
	open(f, sealed, testTopic, 0)
	open(f, b, testTopic, 0)                                     // refused
	open(f, marker([]byte{0, 0, 0, 0}, make([]byte, 6)), "t", 0) // passed
	trySeal(t, f, b, "no lease", 0, testNow)                     // neither
	want := [abi.NumCounters]uint64{1, 3, uint64(len(b)), 1, 3, uint64(len(b)), 1, 1, 1, 1, 0}
	if got := f.Counters(); got != want {
		t.Errorf("counters %v, want %v", got, want)
	}
}
