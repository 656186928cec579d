package kafka

// apartSize in bytes is from where on records stand apart. Less is copied: a piece of its own
// costs a writer more.
const apartSize = 4 << 10

// An Apart is a run of records that has its place in an encoded body and was not copied there.
type Apart struct {
	At    int // bytes that precede it, other runs not counted
	Bytes []byte
}

// Gather is Append without a copy of the records, for a vectored write: the body is what Join
// makes of b and apart. The runs alias the request's Records.
func (q *ProduceRequest) Gather(b []byte) (_ []byte, apart []Apart) {
	w := newGatherer(b, KeyProduce, q.Version)
	q.write(&w)
	return w.b, w.apart
}

// Gather is Append without a copy of the records, as that of ProduceRequest is.
func (a *FetchResponse) Gather(b []byte) (_ []byte, apart []Apart) {
	w := newGatherer(b, KeyFetch, a.Version)
	a.write(&w)
	return w.b, w.apart
}

// Gather is Append without a copy of the records, as that of ProduceRequest is.
func (a *ShareFetchResponse) Gather(b []byte) (_ []byte, apart []Apart) {
	w := newGatherer(b, KeyShareFetch, a.Version)
	a.write(&w)
	return w.b, w.apart
}

func newGatherer(b []byte, key, version int16) writer {
	w := newWriter(b, key, version)
	w.gather = true
	return w
}

// Join appends to pieces what b is with each run at its place, in order.
func Join(pieces [][]byte, b []byte, apart []Apart) [][]byte {
	from := 0
	for _, a := range apart {
		pieces = append(pieces, b[from:a.At], a.Bytes)
		from = a.At
	}
	return append(pieces, b[from:])
}
