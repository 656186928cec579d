package lease

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
)

func logger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func TestAChannelEndsFiveMinutesAfterItsLastCall(t *testing.T) {
	var table table
	at := time.Now()
	s := &session{}
	id := table.add(s, at)
	at = at.Add(channel.IdleLimit - time.Millisecond)
	if table.get(id, at) != s {
		t.Fatal("it ends before its time")
	}
	table.use(s, at)
	at = at.Add(channel.IdleLimit - time.Millisecond)
	if table.get(id, at) != s {
		t.Fatal("a call does not keep it")
	}
	if table.expire(at.Add(time.Millisecond)); table.len() != 0 {
		t.Error("it does not end")
	}
}

// TestRepeatedHandshakesDriveOutNoChannelInUse fills the table.
func TestRepeatedHandshakesDriveOutNoChannelInUse(t *testing.T) {
	var table table
	at := time.Now()
	used := make(map[channel.ID]*session)
	for range 3 {
		s := &session{}
		used[table.add(s, at)] = s
		table.use(s, at)
	}
	newest := channel.ID{}
	for i := range 2 * maxChannels {
		newest = table.add(&session{}, at.Add(time.Duration(i)*time.Millisecond))
	}
	if table.len() != maxChannels {
		t.Errorf("%d channels", table.len())
	}
	for id, s := range used {
		if table.get(id, at) != s {
			t.Error("a channel in use had to give way")
		}
	}
	if table.get(newest, at) == nil {
		t.Error("the newest had to give way")
	}
	// With all in use the one that is unused for longest goes.
	for id, s := range table.open {
		if used[id] == nil {
			table.use(s, at.Add(time.Minute))
		}
	}
	table.add(&session{}, at.Add(time.Minute))
	left := 0
	for id := range used {
		if table.get(id, at) != nil {
			left++
		}
	}
	if left != 2 || table.len() != maxChannels {
		t.Errorf("%d of the 3 oldest are left, of %d", left, table.len())
	}
}

func TestAKeyIsReadAsItIsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pairing.key")
	key, err := NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text []byte, mode os.FileMode) {
		t.Helper()
		os.Remove(path)
		if err := os.WriteFile(path, text, mode); err != nil {
			t.Fatal(err)
		}
	}
	write(MarshalKey(key), 0o600)
	if got, err := ReadKey(path); err != nil || *got != *key {
		t.Errorf("another key: %v", err)
	}
	write(bytes.TrimSpace(MarshalKey(key)), 0o600) // as an editor without a last line's end leaves it
	if got, err := ReadKey(path); err != nil || *got != *key {
		t.Errorf("another key: %v", err)
	}
	if text := fmt.Sprint(key); text != "pairing key" {
		t.Errorf("it prints as %s", text)
	}
	digits := strings.TrimSpace(string(MarshalKey(key)))
	for name, text := range map[string]string{
		"nothing": "", "a digit less": digits[1:], "a digit more": digits + "0", "two lines": digits[:63] + "\n\n",
		"no digits": strings.Repeat("x", 64), "no key": strings.Repeat("0", 64) + "\n", "another file": strings.Repeat("a", 4096),
	} {
		write([]byte(text), 0o600)
		_, err := ReadKey(path)
		if err == nil || !strings.Contains(err.Error(), "\nhint: ") || strings.Contains(err.Error(), digits[1:9]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	write(MarshalKey(key), 0o644)
	if _, err := ReadKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others may read: %v", err)
	}
}

func TestASocketThatAProcessLeftIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	left, err := Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("unix:" + path); err == nil || !strings.Contains(err.Error(), "\nhint: ") {
		t.Errorf("a socket in use: %v", err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	left.Close()
	again, err := Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != socketMode {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(path+"2", []byte("a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("unix:" + path + "2"); err == nil {
		t.Error("a file was replaced")
	}
	if b, err := os.ReadFile(path + "2"); err != nil || string(b) != "a file" {
		t.Errorf("the file is gone: %v", err)
	}
}
