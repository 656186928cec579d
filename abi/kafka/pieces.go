package kafka

// A Piece is bytes that belong behind the first At bytes of a buffer, and were left where they
// are instead of being copied into it.
type Piece struct {
	At    int
	Bytes []byte
}

// MinPiece is the size in bytes from which records are left where they are: to copy less costs
// less than to write once more.
const MinPiece = 8 << 10

// records appends records, or leaves them as a piece where the writer is to; nil is null.
func (w *writer) records(p []byte) {
	if p == nil {
		w.count(-1)
		return
	}
	w.count(len(p))
	if w.apart && len(p) >= MinPiece {
		w.pieces = append(w.pieces, Piece{len(w.b), p})
		return
	}
	w.raw(p)
}

// AppendApart is Append, but for the records of MinPiece bytes and more: these are appended to
// pieces instead.
func (q *ProduceRequest) AppendApart(b []byte, pieces []Piece) ([]byte, []Piece) {
	w := newWriter(b, KeyProduce, q.Version)
	w.apart, w.pieces = true, pieces
	q.write(&w)
	return w.b, w.pieces
}

// AppendApart is Append, but for the records of MinPiece bytes and more: these are appended to
// pieces instead.
func (a *FetchResponse) AppendApart(b []byte, pieces []Piece) ([]byte, []Piece) {
	w := newWriter(b, KeyFetch, a.Version)
	w.apart, w.pieces = true, pieces
	a.write(&w)
	return w.b, w.pieces
}

// AppendApart is Append, but for the records of MinPiece bytes and more: these are appended to
// pieces instead.
func (a *ShareFetchResponse) AppendApart(b []byte, pieces []Piece) ([]byte, []Piece) {
	w := newWriter(b, KeyShareFetch, a.Version)
	w.apart, w.pieces = true, pieces
	a.write(&w)
	return w.b, w.pieces
}
