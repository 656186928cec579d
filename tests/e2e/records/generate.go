package records

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Canaries are texts that must never reach a broker's disk, one for each place that an
// application can put data into.
type Canaries struct {
	Key, Value, HeaderName, HeaderValue string
}

// NewCanaries makes four texts, unlike any other text on the machine.
func NewCanaries() Canaries {
	id := func() string { return fmt.Sprintf("%016x", rand.Uint64()) }
	return Canaries{
		Key:         "canary-key-" + id(),
		Value:       "canary-value-" + id(),
		HeaderName:  "canary-name-" + id(),
		HeaderValue: "canary-header-" + id(),
	}
}

// A Shape says which records a client can express. The zero value is the narrowest: text
// without nulls, headers or timestamps, on one partition.
type Shape struct {
	Partitions  int  // records go round robin over these; 0 means 1
	Binary      bool // any bytes in keys, values and header values, rather than letters
	Headers     bool // and names that repeat
	NullHeaders bool // a header's value may be null
	NullKeys    bool
	EmptyKeys   bool
	NullValues  bool
	EmptyValues bool
	Timestamps  bool // the client takes the record's time from the application
	Largest     int  // bytes of the largest value; 0 means MaxValue
	FewHeaders  bool // at most 4 different lists of headers, in runs (kcat sets them per run)
}

// MaxValue is the largest value in bytes that Generate makes unless the shape says otherwise;
// sizes are log-uniform from 0.
const MaxValue = 100 << 10

// Generate makes n records from a seed: always the same ones for the same arguments. Every
// 50th record carries the canaries that the shape has room for.
func Generate(seed uint64, n int, s Shape, c Canaries) []Record {
	rng := rand.New(rand.NewPCG(seed, 1))
	alphabet := "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	pool := make([]byte, 4*MaxValue)
	for i := range pool {
		switch {
		case i >= len(pool)/2 && i%1024 >= 64:
			pool[i] = pool[i-64] // half of the pool compresses well
		case s.Binary:
			pool[i] = byte(rng.Uint32())
		default:
			pool[i] = alphabet[rng.IntN(len(alphabet))]
		}
	}
	// cut takes size bytes from somewhere in the pool, marked with the record's number.
	cut := func(i, size int, canary string) []byte {
		v := make([]byte, size, size+len(canary))
		copy(v, pool[rng.IntN(len(pool)-size):])
		if size >= 8 {
			copy(v, fmt.Sprintf("%07d:", i))
		}
		return append(v, canary...)
	}
	logUniform := func(limit int) int {
		return int(math.Exp(rng.Float64()*math.Log(float64(limit+1)))) - 1
	}
	header := func(i, k int, canary bool) Header {
		h := Header{Name: fmt.Sprintf("h%d-%s", k, pool[k:k+5])}
		if s.Binary {
			h.Name = fmt.Sprintf("h%d-ü", k)
		}
		switch {
		case canary:
			h = Header{Name: c.HeaderName, Value: []byte(c.HeaderValue)}
		case s.NullHeaders && rng.IntN(6) == 0:
		default:
			h.Value = cut(i, 1+logUniform(60), "")
		}
		return h
	}
	list := func(i int, canary bool) []Header {
		var hs []Header
		for k := range rng.IntN(4) {
			hs = append(hs, header(i, k, false))
			if rng.IntN(4) == 0 {
				hs = append(hs, header(i, k, false)) // the same name again
			}
		}
		if canary {
			hs = append(hs, header(i, 0, true))
		}
		return hs
	}
	lists := [][]Header{nil, list(0, false), list(1, true), list(2, false)}

	partitions, largest := max(s.Partitions, 1), s.Largest
	if largest == 0 {
		largest = MaxValue
	}
	now := int64(1_760_000_000_000)
	all := make([]Record, n)
	for i := range all {
		r := &all[i]
		canary := i%50 == 7
		r.Partition = int32(i % partitions)
		r.Offset, r.Timestamp = -1, -1
		if s.Timestamps {
			now += int64(rng.IntN(7)) - 2 // not monotonous, as applications' times are not
			r.Timestamp = now
		}
		keyCanary, valueCanary := "", ""
		if canary {
			keyCanary, valueCanary = c.Key, c.Value
		}
		r.Key = nullOrEmpty(rng, cut(i, 1+logUniform(100), keyCanary), canary, s.NullKeys, s.EmptyKeys)
		size := logUniform(largest)
		if size == 0 && !s.EmptyValues {
			size = 1
		}
		r.Value = nullOrEmpty(rng, cut(i, size, valueCanary), canary, s.NullValues, s.EmptyValues)
		switch {
		case s.Headers && s.FewHeaders:
			r.Headers = lists[i*len(lists)/n]
		case s.Headers:
			r.Headers = list(i, canary)
		}
	}
	return all
}

// nullOrEmpty makes about one in ten of what it is given null, and one in ten empty.
func nullOrEmpty(rng *rand.Rand, v []byte, keep, null, empty bool) []byte {
	switch draw := rng.IntN(10); {
	case keep:
	case draw == 0 && null:
		return nil
	case draw == 1 && empty:
		return []byte{}
	}
	return v
}
