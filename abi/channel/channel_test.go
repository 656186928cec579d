package channel

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

var (
	kid1 = abi.Kid{1, 2, 3, 4, 5, 6, 7, 8}
	kid2 = abi.Kid{0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa, 0xf9, 0xf8}
	all  = []Request{
		{Op: OpLease, Topic: "orders"},
		{Op: OpRoot, Topic: "bills", Partition: 7, Kid: kid1},
		{Op: OpRenew, Kids: []abi.Kid{kid1, kid2}},
		{Op: OpOpened, Topic: "a", Kid: kid2, Leaf: 0x010203, Partition: 5, Offset: 1 << 40},
		{Op: OpGroups},
	}
)

// TestRequestsHaveTheLayoutOfTheText spells the bytes of PROTOCOL.md §2.12.
func TestRequestsHaveTheLayoutOfTheText(t *testing.T) {
	want := "0005" +
		"01" + "0006" + hex.EncodeToString([]byte("orders")) +
		"02" + "0005" + hex.EncodeToString([]byte("bills")) + "00000007" + "0102030405060708" +
		"03" + "0002" + "0102030405060708" + "fffefdfcfbfaf9f8" +
		"04" + "0001" + "61" + "fffefdfcfbfaf9f8" + "00010203" + "00000005" + "0000010000000000" +
		"05"
	if got := hex.EncodeToString(AppendRequests(nil, all)); got != want {
		t.Errorf("requests are\n%s, by the text\n%s", got, want)
	}
	answers := AppendAnswer(AppendCount(nil, 2), Answer{Status: abi.StatusPending})
	answers = AppendAnswer(answers, Answer{Body: AppendKids(nil, []abi.Kid{kid1})})
	if got, want := hex.EncodeToString(answers), "0002"+"00000034"+"00000000"+"00000000"+"0000000a"+"0001"+"0102030405060708"; got != want {
		t.Errorf("answers are\n%s, by the text\n%s", got, want)
	}
	realm := wire.RealmID{0xaa, 15: 0xbb}
	if got, want := string(Prologue(realm)), "KX1 lease v1\x00"+string(realm[:]); got != want {
		t.Errorf("prologue %x, by the text %x", got, want)
	}
}

func TestWhatIsAppendedParses(t *testing.T) {
	got, err := ParseRequests(AppendRequests(nil, all))
	if err != nil || !reflect.DeepEqual(got, all) {
		t.Errorf("%+v, %v", got, err)
	}
	want := []Answer{{Body: []byte("a block")}, {Status: abi.StatusErased, Body: []byte{}}, {Status: 77, Body: []byte{}}}
	b := AppendCount(nil, len(want))
	for _, a := range want {
		b = AppendAnswer(b, a)
	}
	answers, err := ParseAnswers(b, len(want))
	if err != nil || !reflect.DeepEqual(answers, want) {
		t.Errorf("%+v, %v", answers, err)
	}
	kids, err := ParseKids(AppendKids(nil, []abi.Kid{kid2, kid1}))
	if err != nil || !reflect.DeepEqual(kids, []abi.Kid{kid2, kid1}) {
		t.Errorf("%x, %v", kids, err)
	}
}

func TestNothingShorterOrLongerParses(t *testing.T) {
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	whole := AppendRequests(nil, all)
	for n := range whole {
		_, err := ParseRequests(whole[:n])
		refused("requests cut short", err)
	}
	_, err := ParseRequests(append(whole, 0))
	refused("requests with more behind", err)

	answers := AppendAnswer(AppendAnswer(AppendCount(nil, 2), Answer{Body: []byte("block")}), Answer{Status: abi.StatusPending})
	for n := range answers {
		_, err := ParseAnswers(answers[:n], 2)
		refused("answers cut short", err)
	}
	_, err = ParseAnswers(append(answers, 0), 2)
	refused("answers with more behind", err)
	for _, n := range []int{0, 1, 3} {
		_, err = ParseAnswers(answers, n)
		refused("answers to another number of requests", err)
	}
	kids := AppendKids(nil, []abi.Kid{kid1})
	for n := range kids {
		_, err := ParseKids(kids[:n])
		refused("kids cut short", err)
	}
}

func TestWhatMeansNothingIsRefused(t *testing.T) {
	for name, r := range map[string]Request{
		"no topic":             {Op: OpLease},
		"a topic too long":     {Op: OpLease, Topic: strings.Repeat("t", abi.MaxTopicLen+1)},
		"operation 0":          {Topic: "orders"},
		"operation 6":          {Op: 6, Topic: "orders"},
		"a negative partition": {Op: OpRoot, Topic: "orders", Partition: -1},
		"a leaf out of a tree": {Op: OpOpened, Topic: "orders", Leaf: 1 << 24},
		"a negative offset":    {Op: OpOpened, Topic: "orders", Offset: -1},
	} {
		if got, err := ParseRequests(AppendRequests(nil, []Request{r})); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := ParseRequests([]byte{0, 0}); !errors.Is(err, ErrMalformed) {
		t.Errorf("no request: %v", err)
	}
	refusal := AppendAnswer(AppendCount(nil, 1), Answer{Status: abi.StatusErased, Body: []byte("key")})
	if _, err := ParseAnswers(refusal, 1); !errors.Is(err, ErrMalformed) {
		t.Errorf("a refusal with a body: %v", err)
	}
}

// TestWhatFitsHasAnAnswerThatFits takes the largest calls of each kind.
func TestWhatFitsHasAnAnswerThatFits(t *testing.T) {
	longest := strings.Repeat("t", abi.MaxTopicLen)
	lease := abi.Lease{Topic: longest}
	root := abi.Root{Topic: longest}
	for _, c := range []struct {
		request Request
		body    []byte
	}{
		{Request{Op: OpLease, Topic: longest}, lease.Append(nil)},
		{Request{Op: OpRoot, Topic: longest}, root.Append(nil)},
		{Request{Op: OpRenew, Kids: make([]abi.Kid, 100)}, AppendKids(nil, make([]abi.Kid, 100))},
		{Request{Op: OpOpened, Topic: "t"}, nil},
		{Request{Op: OpGroups}, make([]byte, wire.MaxCredentialSize)},
	} {
		many := make([]Request, 3000)
		for i := range many {
			many[i] = c.request
		}
		n := Fits(many)
		call := AppendRequests(nil, many[:n])
		answer := AppendCount(nil, n)
		for range n {
			answer = AppendAnswer(answer, Answer{Body: c.body})
		}
		if got, want := AppendRequests(nil, many[:1]), 2+c.request.Size(); len(got) != want {
			t.Errorf("%v takes %d bytes, and Size says %d", c.request.Op, len(got)-2, want-2)
		}
		if got, want := len(answer), 2+n*c.request.AnswerSize(); got != want {
			t.Errorf("%d answers to %v take %d bytes, and AnswerSize says %d", n, c.request.Op, got, want)
		}
		if _, err := ParseRequests(call); err != nil {
			t.Errorf("%d of %v: %v", n, c.request.Op, err)
		}
		if _, err := ParseAnswers(answer, n); err != nil {
			t.Errorf("%d answers to %v: %v", n, c.request.Op, err)
		}
		if _, err := ParseRequests(AppendRequests(nil, many[:n+1])); !errors.Is(err, ErrMalformed) {
			t.Errorf("one more than the %d of %v that fit: %v", n, c.request.Op, err)
		}
	}
	if n := Fits([]Request{{Op: OpRenew, Kids: make([]abi.Kid, 1<<14)}}); n != 0 {
		t.Errorf("more kids than a message holds: %d", n)
	}
}

func FuzzParseRequests(f *testing.F) {
	f.Add(AppendRequests(nil, all))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		requests, err := ParseRequests(b)
		if !bytes.Equal(b, before) {
			t.Fatal("the input changed")
		}
		if err == nil && !bytes.Equal(AppendRequests(nil, requests), b) {
			t.Fatalf("%x parses, and is appended as %x", b, AppendRequests(nil, requests))
		}
	})
}

func FuzzParseAnswers(f *testing.F) {
	f.Add(AppendAnswer(AppendAnswer(AppendCount(nil, 2), Answer{Body: AppendKids(nil, []abi.Kid{kid1})}), Answer{Status: abi.StatusPending}))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		n := 0
		if len(b) >= 2 {
			n = int(b[0])<<8 | int(b[1])
		}
		answers, err := ParseAnswers(b, n)
		if err == nil {
			again := AppendCount(nil, n)
			for _, a := range answers {
				again = AppendAnswer(again, a)
				if kids, err := ParseKids(a.Body); err == nil && !bytes.Equal(AppendKids(nil, kids), a.Body) {
					t.Fatalf("kids %x are appended otherwise", a.Body)
				}
			}
			if !bytes.Equal(again, b) {
				t.Fatalf("%x parses, and is appended as %x", b, again)
			}
		}
		if !bytes.Equal(b, before) {
			t.Fatal("the input changed")
		}
	})
}
