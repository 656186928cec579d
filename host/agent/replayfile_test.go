package agent

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// replayFileAt opens the file at path for a guard that gets what it holds.
func replayFileAt(t *testing.T, path string) (*replayFile, *replayGuard, replayEntries) {
	t.Helper()
	file, entries, _, err := openReplayFile(path)
	if err != nil {
		t.Fatal(err)
	}
	g := newReplayGuard(maxReplayEntries)
	g.restore(entries, held)
	t.Cleanup(file.close)
	flush(t, file, g)
	return file, g, entries
}

func flush(t *testing.T, file *replayFile, g *replayGuard) {
	t.Helper()
	if err := file.flush(g); err != nil {
		t.Fatal(err)
	}
}

// writtenReplays is a file of three writes, with the largest of each number.
func writtenReplays(t *testing.T) (path string, content []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "state.replay")
	file, g, _ := replayFileAt(t, path)
	see(t, g, abi.Kid{1}, 1<<24-1, 1<<24-1, 1<<56-1)
	see(t, g, abi.Kid{1}, 0, 0, 0)
	flush(t, file, g)
	see(t, g, abi.Kid{2}, 7, 3, 11)
	see(t, g, abi.Kid{1}, 8, 3, 12)
	flush(t, file, g)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, content
}

func TestReplayFileGivesBackWhatWasFlushed(t *testing.T) {
	path, content := writtenReplays(t)
	if want := len(replayHeader) + 9*replayEntry; len(content) != want {
		t.Errorf("%d bytes for 2 kids, 4 batches and 3 checks, want %d", len(content), want)
	}
	_, g, entries := replayFileAt(t, path)
	if entries.damaged || len(entries.kids) != 2 || entries.kids[0] != (abi.Kid{1}) {
		t.Errorf("read back: %+v", entries)
	}
	for _, b := range []struct {
		kid             abi.Kid
		leaf            uint32
		partition       int32
		offset, another int64
	}{{abi.Kid{1}, 1<<24 - 1, 1<<24 - 1, 1<<56 - 1, 5}, {abi.Kid{1}, 0, 0, 0, 1}, {abi.Kid{2}, 7, 3, 11, 10}, {abi.Kid{1}, 8, 3, 12, 1 << 40}} {
		if see(t, g, b.kid, b.leaf, b.partition, b.another) || !see(t, g, b.kid, b.leaf, b.partition, b.offset) {
			t.Errorf("%+v is not known", b)
		}
	}
}

func TestTornReplayFileLosesItsLastWriteOnly(t *testing.T) {
	_, content := writtenReplays(t)
	whole := parseReplays(content)
	last := 3 * replayEntry // kid, two batches; then the check
	for n := len(replayHeader) + replayEntry; n <= len(content); n++ {
		got := parseReplays(content[:n])
		if got.damaged {
			t.Fatalf("cut to %d bytes: damaged", n)
		}
		if n >= len(content)-last-replayEntry && n < len(content) && (len(got.kids) != 1 || len(got.batches[abi.Kid{1}]) != 2) {
			t.Fatalf("cut to %d bytes: %+v, want what the write before brought", n, got)
		}
	}
	if !reflect.DeepEqual(whole, parseReplays(append(bytes.Clone(content), make([]byte, replayEntry-1)...))) {
		t.Error("less than an entry at the end changes what is read")
	}
}

func TestDamagedReplayFileIsNoticedAndBelievedNowhere(t *testing.T) {
	_, content := writtenReplays(t)
	whole := parseReplays(content)
	lastCheck := len(content) - replayEntry
	for i := range content {
		for bit := range 8 {
			bad := bytes.Clone(content)
			bad[i] ^= 1 << bit
			got := parseReplays(bad)
			// The last write's check, made another entry, is as a write that did not end.
			if !got.damaged && i < lastCheck {
				t.Fatalf("byte %d, bit %d: not noticed", i, bit)
			}
			for kid, batches := range got.batches {
				for at, offset := range batches {
					if was, ok := whole.batches[kid][at]; !ok || was != offset {
						t.Fatalf("byte %d, bit %d: an entry that was never written: %x", i, bit, kid)
					}
				}
			}
		}
	}
}

// What can be read can be written, and is read as the same again.
func FuzzReplayFile(f *testing.F) {
	g := newReplayGuard(maxReplayEntries)
	for i := range int64(3) {
		if _, _, err := g.first(abi.Kid{byte(i)}, 1<<24-1, int32(i), i<<50, held); err != nil {
			f.Fatal(err)
		}
	}
	_, entries, _ := g.take(true, 0)
	whole, _ := appendCheck(append([]byte(replayHeader), entries...), 0)
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add([]byte(replayHeader))
	f.Fuzz(func(t *testing.T, b []byte) {
		from := parseReplays(b)
		g := newReplayGuard(maxReplayEntries)
		g.restore(from, held)
		_, entries, _ := g.take(true, 0)
		whole, _ := appendCheck(append([]byte(replayHeader), entries...), 0)
		again := parseReplays(whole)
		if again.damaged || !reflect.DeepEqual(again.batches, from.batches) {
			t.Errorf("%x reads as %+v, and written as %+v", b, from, again)
		}
	})
}

func TestReplayFileIsWrittenAnewWithoutWhatIsErased(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.replay")
	file, g, _ := replayFileAt(t, path)
	kept := abi.Kid{255}
	see(t, g, kept, 1, 0, 100)
	for i := range byte(5) {
		kid := abi.Kid{i}
		for leaf := range uint32(replaySlack / 2) {
			see(t, g, kid, leaf, 0, int64(leaf))
		}
		flush(t, file, g)
		g.forget([]abi.Kid{kid})
	}
	flush(t, file, g)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if most := int64(2*replaySlack) * replayEntry; info.Size() > most || info.Mode().Perm() != 0o600 {
		t.Errorf("%d bytes for 2 entries, want at most %d; mode %v", info.Size(), most, info.Mode())
	}
	see(t, g, kept, 2, 0, 101) // the numbers are others now
	flush(t, file, g)
	_, g, _ = replayFileAt(t, path)
	if see(t, g, kept, 1, 0, 99) || see(t, g, kept, 2, 0, 99) {
		t.Error("a kid that is still held is not known")
	}
}

func TestReplayFileThatCannotBeWrittenIsWrittenAnewLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.replay")
	file, g, _ := replayFileAt(t, path)
	see(t, g, abi.Kid{1}, 1, 0, 100)
	if err := file.f.Close(); err != nil { // as a disk that is gone
		t.Fatal(err)
	}
	if err := file.flush(g); err == nil {
		t.Fatal("no error")
	}
	see(t, g, abi.Kid{1}, 2, 0, 101)
	flush(t, file, g)
	_, g, _ = replayFileAt(t, path)
	if see(t, g, abi.Kid{1}, 1, 0, 99) || see(t, g, abi.Kid{1}, 2, 0, 99) {
		t.Error("what was noted around the failure is not known")
	}
}

// loggedLines collects an agent's log.
type loggedLines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *loggedLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *loggedLines) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), s)
}

func (l *loggedLines) config(c *Config) { c.Log = slog.New(slog.NewTextHandler(l, nil)) }

func TestReplayIsRefusedAfterARestart(t *testing.T) {
	w := newWorld(t)
	state := w.enrol(wire.RoleConsume, orders, billing)
	consumer := w.start(state, slow).ready()
	l := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready().lease("orders")
	consumer.opens(l)
	opened := func(r *running, offset int64) error { return r.Opened("orders", l.Kid, l.Start, 1, offset) }
	if err := opened(consumer, 40); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "state")
	eventually(t, "the batch on disk", func() bool { // without that the agent ends: a crash
		b, err := os.ReadFile(consumer.store.replayPath())
		return err == nil && len(parseReplays(b).batches[l.Kid]) == 1 && copyState(consumer.store.path, image) == nil
	})
	if err := opened(consumer, 41); err != abi.StatusReplayed {
		t.Fatalf("another offset: %v", err)
	}
	consumer.stop()
	for name, path := range map[string]string{"end": state, "crash": image} {
		again := w.start(path, slow)
		if err := opened(again, 41); err != abi.StatusReplayed {
			t.Errorf("after %s, another offset: %v, want %v", name, err, abi.StatusReplayed)
		}
		if err := opened(again, 40); err != nil {
			t.Errorf("after %s, the same offset: %v", name, err)
		}
		if n := again.Snapshot().Alarms[AlarmReplay]; n != 1 {
			t.Errorf("after %s: %d alarms, want 1", name, n)
		}
		again.stop()
	}
	for name, change := range map[string]func(string) error{
		"missing": os.Remove,
		"damaged": func(path string) error {
			return os.WriteFile(path, []byte(replayHeader+fmt.Sprint(make([]byte, 64))), 0o600)
		},
	} {
		if err := change(state + ".replay"); err != nil {
			t.Fatal(err)
		}
		var lines loggedLines
		w.start(state, slow, lines.config).stop()
		if !lines.has("level=ERROR") || !lines.has("replay state is missing or damaged") {
			t.Errorf("a %s file is not said", name)
		}
		lines = loggedLines{}
		w.start(state, slow, lines.config).stop()
		if lines.has("replay state is missing or damaged") {
			t.Errorf("a file that was %s is said twice", name)
		}
	}
}

// copyState copies a state file and what is kept beside it.
func copyState(from, to string) error {
	for _, suffix := range []string{"", ".replay"} {
		b, err := os.ReadFile(from + suffix)
		if err == nil {
			err = os.WriteFile(to+suffix, b, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
