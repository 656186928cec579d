package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

func TestPartitionsOfOneFrameGetNoGoroutineEach(t *testing.T) {
	const n = 5 * maxSideBySide
	var running, most, calls atomic.Int64
	full := make(chan struct{})
	c := &conn{}
	err := c.each(n, func(_ int, waits func()) {
		waits()
		now := running.Add(1)
		defer running.Add(-1)
		if calls.Add(1) == maxSideBySide {
			for range 10000 { // whoever else could run shows up meanwhile
				runtime.Gosched()
			}
			close(full)
		}
		if now > maxSideBySide {
			most.Store(now)
		}
		<-full
	})
	if err != nil || calls.Load() != n {
		t.Errorf("%d of %d calls, error %v", calls.Load(), n, err)
	}
	if most.Load() > 0 {
		t.Errorf("%d at once", most.Load())
	}
}

func TestPatienceMakesItsTimerWhenSomebodyWaits(t *testing.T) {
	waits := 0
	p := &patience{Context: t.Context(), end: time.Now().Add(time.Millisecond), waits: func() { waits++ }}
	defer p.release()
	if end, ok := p.Deadline(); !ok || !end.Equal(p.end) || p.timed != nil {
		t.Error("the deadline is another, or has a timer")
	}
	<-p.Done()
	if !errors.Is(p.Err(), context.DeadlineExceeded) || waits != 1 {
		t.Errorf("error %v, %d waits", p.Err(), waits)
	}
}

func TestGroupRefusalAllocatesNothingFromAClaimedCount(t *testing.T) {
	body := []byte{0, 1, 'g', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	body = append(body, make([]byte, 4<<20)...)
	binary.BigEndian.PutUint32(body[17:], 4<<20-4) // topics
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := groupRefusal(kafka.KeyOffsetCommit, 2, body)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, kafka.ErrFrame) {
		t.Errorf("error %v, want %v", err, kafka.ErrFrame)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
		t.Errorf("%d bytes allocated for a request of %d", took, len(body))
	}
}

func TestLogLimitKeepsNoLongNames(t *testing.T) {
	var quiet rateLimit
	long := strings.Repeat("x", 1<<20)
	if !quiet.allow(long) || quiet.allow(long) {
		t.Error("a long name is not limited")
	}
	for subject := range quiet.last {
		if len(subject) > maxName {
			t.Errorf("%d bytes are kept", len(subject))
		}
	}
}
