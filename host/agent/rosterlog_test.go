package agent

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// TestRosterThatIsCutUnderItsReaderIsReadAgain: an issuer, or whoever enrols, says so and
// goes on.
func TestRosterThatIsCutUnderItsReaderIsReadAgain(t *testing.T) {
	for name, opts := range map[string][]kfake.Opt{
		"with topic ids": nil,
		"without":        {kfake.MaxVersions(kversion.V2_7_0())}, // as a log that was cut
	} {
		t.Run(name, func(t *testing.T) { cutRosterIsReadAgain(newWorld(t, opts...)) })
	}
}

func cutRosterIsReadAgain(w *world) {
	t := w.t
	var said lockedBuffer
	log, err := OpenRosterLog(t.Context(), w.kafka, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	read := map[string]int{}
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() {
		log.Run(ctx, func(key, _ []byte) {
			mu.Lock()
			defer mu.Unlock()
			read[string(key)]++
		})
	})
	write := func(key string) {
		t.Helper()
		if err := log.Write(ctx, []keyring.Record{{Key: []byte(key), Value: []byte("v")}}); err != nil {
			t.Fatal(err)
		}
	}
	times := func(key string) int {
		mu.Lock()
		defer mu.Unlock()
		return read[key]
	}
	write("first")
	write("second")
	eventually(t, "what was written", func() bool { return times("second") == 1 })
	w.recreate(rosterTopic)
	eventually(t, "a way to write", func() bool {
		once, stop := context.WithTimeout(ctx, 2*time.Second)
		defer stop()
		return log.Write(once, []keyring.Record{{Key: []byte("first"), Value: []byte("v")}}) == nil
	})
	eventually(t, "what was written anew", func() bool { return times("first") >= 2 })
	if !strings.Contains(said.String(), "alarm=rollback") {
		t.Errorf("nothing is said of it:\n%s", said.String())
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
