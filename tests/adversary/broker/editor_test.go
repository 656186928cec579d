package broker

import (
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// honest is the client id of the test's own connections: nothing of theirs is edited.
const honest = "honest"

// Client ids of the parties whose answers are edited.
const (
	agentClient    = "wasm-e2ee-agent"
	issuerClient   = "issuer" // which decides by its book, whatever it is shown
	consumerClient = "plain-consumer"
	producerClient = "plain-producer"
)

const maxFrame = 64 << 20

// A place is one partition.
type place struct {
	topic     string
	partition int32
}

// An exchange is a request whose answer is outstanding.
type exchange struct {
	key, version int16
	client       string
}

// A reply is what becomes of an answer.
type reply struct {
	frame  []byte // without its length
	length uint32 // the length that is claimed; 0: the true one
	delay  time.Duration
	drop   bool // the connection instead of the answer
}

// An editor stands between the listener of the embedded broker and everybody who connects.
type editor struct {
	seen *observations

	mu       sync.Mutex
	rng      *rand.Rand
	armed    *action                      // the one that is applied next
	held     *place                       // a partition that is shown without its records
	hit      *place                       // where data was edited last
	kept     []func(r *kafka.Record) bool // control records that nobody is shown
	staged   *wire.AuthorityState         // the one that is edited
	instead  []byte                       // of it
	applied  map[string]int
	metadata map[exchange][]byte // the first answer to each
	names    map[[16]byte]string // of topics, by id
}

func newEditor(seed uint64, seen *observations) *editor {
	return &editor{seen: seen, rng: rand.New(rand.NewPCG(seed, 1)), applied: map[string]int{},
		metadata: map[exchange][]byte{}, names: map[[16]byte]string{}}
}

// arm makes a the next action; nil: the broker is honest.
func (e *editor) arm(a *action) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.armed, e.held = a, nil
	if a != nil {
		e.hit = nil
	}
}

// hold shows a partition without records, so that several batches gather, until an action is
// armed.
func (e *editor) hold(at place) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.held = &at
}

// keepBack shows nobody the control records for which f holds, until it is released. f is
// called one call at a time.
func (e *editor) keepBack(f func(r *kafka.Record) bool) (release func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := len(e.kept)
	e.kept = append(e.kept, f)
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.kept[i] = func(*kafka.Record) bool { return false }
	}
}

// keeps reports whether a control record is kept back. The caller holds mu.
func (e *editor) keeps(r *kafka.Record) bool {
	return slices.ContainsFunc(e.kept, func(f func(*kafka.Record) bool) bool { return f(r) })
}

// where is the partition that was edited last.
func (e *editor) where() (at place) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hit != nil {
		at = *e.hit
	}
	return at
}

func (e *editor) count(name string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.applied[name]
}

func (e *editor) did(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.applied[name]++
}

// listen is kfake's ListenFn: clients see its address, and the broker sees pipes.
func (e *editor) listen(network, address string) (net.Listener, error) {
	ln, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	return &listener{ln, e}, nil
}

type listener struct {
	net.Listener
	editor *editor
}

func (l *listener) Accept() (net.Conn, error) {
	client, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	broker, ours := net.Pipe()
	k := &link{e: l.editor, client: client, broker: ours}
	go k.requests()
	go k.answers()
	return broker, nil
}

// A link is one connection.
type link struct {
	e              *editor
	client, broker net.Conn
	mu             sync.Mutex
	outstanding    []exchange
}

func (k *link) close() {
	_ = k.client.Close()
	_ = k.broker.Close()
}

func (k *link) requests() {
	defer k.close()
	for {
		frame, err := readFrame(k.client)
		if err != nil {
			return
		}
		h, err := kafka.ParseRequestHeader(frame)
		if err != nil {
			return
		}
		x := exchange{h.Key, h.Version, string(h.ClientID)}
		if x.client != honest {
			k.e.seen.request(k.e, x, frame, frame[h.Size:])
		}
		k.mu.Lock()
		k.outstanding = append(k.outstanding, x)
		k.mu.Unlock()
		if writeFrame(k.broker, frame, 0) != nil {
			return
		}
	}
}

func (k *link) answers() {
	defer k.close()
	for {
		frame, err := readFrame(k.broker)
		if err != nil {
			return
		}
		k.mu.Lock()
		x := k.outstanding[0]
		k.outstanding = k.outstanding[1:]
		k.mu.Unlock()
		r := reply{frame: frame}
		if x.client != honest {
			r = k.e.edit(x, frame)
		}
		time.Sleep(r.delay)
		if r.drop || writeFrame(k.client, r.frame, r.length) != nil {
			return
		}
	}
}

// edit applies the armed action to an answer, if it fits.
func (e *editor) edit(x exchange, frame []byte) reply {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.learn(x, frame)
	if e.held != nil && x.key == kafka.KeyFetch && x.client == consumerClient {
		r, ok := onBatches(func(e *editor, at place, b [][]byte) ([][]byte, bool) { return nil, at == *e.held }, nil)(e, x, frame)
		if ok {
			return r
		}
	}
	if len(e.kept) > 0 && x.key == kafka.KeyFetch && x.client == agentClient {
		frame = e.without(x, frame)
	}
	a := e.armed
	if a == nil || a.answer == nil || a.key != anyKey && a.key != x.key || a.client != "" && a.client != x.client {
		return reply{frame: frame}
	}
	r, ok := a.answer(e, x, frame)
	if !ok {
		return reply{frame: frame}
	}
	e.applied[a.name]++
	e.armed = nil
	return r
}

// without turns what is kept back into tombstones, which say nothing and move readers on.
func (e *editor) without(x exchange, frame []byte) []byte {
	size, err := kafka.ResponseHeaderSize(x.key, x.version, frame)
	if err != nil {
		return frame
	}
	r, err := kafka.ParseFetchResponse(x.version, frame[size:])
	if err != nil {
		return frame
	}
	eachPartition(e, r, func(_ place, p *kafka.FetchPartition) {
		var out []byte
		for _, b := range split(p.Records) {
			records, changed := recordsOf(b), false
			for i := range records {
				if len(records[i].Key) > 0 && records[i].Value != nil && e.keeps(&records[i]) {
					records[i].Value, changed = nil, true
				}
			}
			if changed {
				b = rebuilt(b, records)
			}
			out = append(out, b...)
		}
		p.Records = out
	})
	return r.Append(append([]byte{}, frame[:size]...))
}

// learn remembers names of topics and what can be shown again later.
func (e *editor) learn(x exchange, frame []byte) {
	size, err := kafka.ResponseHeaderSize(x.key, x.version, frame)
	if err != nil {
		return
	}
	switch x.key {
	case kafka.KeyMetadata:
		if r, err := kafka.ParseMetadataResponse(x.version, frame[size:]); err == nil {
			for _, t := range r.Topics {
				e.names[t.ID] = t.Name
			}
		}
		if _, ok := e.metadata[x]; !ok {
			e.metadata[x] = slices.Clone(frame)
		}
	case kafka.KeyFetch:
		if x.client != consumerClient {
			return
		}
		if r, err := kafka.ParseFetchResponse(x.version, frame[size:]); err == nil {
			eachPartition(e, r, func(at place, p *kafka.FetchPartition) { e.seen.served(at, split(p.Records)) })
		}
	}
}

// eachPartition visits the partitions with records.
func eachPartition(e *editor, r *kafka.FetchResponse, f func(at place, p *kafka.FetchPartition)) {
	for i := range r.Topics {
		t := &r.Topics[i]
		name := t.Name
		if r.Version >= 13 {
			name = e.names[t.ID]
		}
		for j := range t.Partitions {
			if p := &t.Partitions[j]; name != "" && len(p.Records) > 0 {
				f(place{name, p.Index}, p)
			}
		}
	}
}

// split cuts a span of batches into whole ones.
func split(records []byte) (batches [][]byte) {
	for len(records) > 0 {
		size, err := kafka.BatchSize(records)
		if err != nil {
			return batches
		}
		batches = append(batches, records[:size:size])
		records = records[size:]
	}
	return batches
}

func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return nil, errors.New("frame too large")
	}
	frame := make([]byte, n)
	_, err := io.ReadFull(r, frame)
	return frame, err
}

func writeFrame(w io.Writer, frame []byte, length uint32) error {
	if length == 0 {
		length = uint32(len(frame))
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, length), frame...))
	return err
}

func (e *editor) name(id [16]byte) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.names[id]
}

// named finds an action.
func named(name string) *action {
	for _, a := range actions() {
		if a.name == name {
			return a
		}
	}
	return nil
}
