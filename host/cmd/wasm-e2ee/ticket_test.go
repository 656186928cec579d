package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// ticketed makes a realm and one ticket of it, and starts a cluster.
func ticketed(t *testing.T) (dir, bootstrap, ticket string) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	dir = t.TempDir()
	must(t, dir, "realm init --dir realm")
	code, out, errs := invoke(t, dir, strings.Fields("realm ticket --dir realm --consume orders --group billing")...)
	if code != 0 || strings.Count(out, "\n") != 1 || !strings.Contains(errs, "PRIVATE") || strings.Contains(errs, strings.TrimSpace(out)) {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	return dir, c.ListenAddrs()[0], strings.TrimSpace(out)
}

// background starts a command and returns how to interrupt it, and what it wrote then.
func background(t *testing.T, c *exec.Cmd) (interrupt func() (code int, errs string)) {
	t.Helper()
	var errs bytes.Buffer
	c.Stderr = &errs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return func() (int, string) {
		_ = c.Process.Signal(os.Interrupt)
		_ = c.Wait()
		return c.ProcessState.ExitCode(), errs.String()
	}
}

func TestANodeEnrolsWithATicket(t *testing.T) {
	dir, bootstrap, ticket := ticketed(t)
	end := background(t, command(t, dir, "issuer", "--dir", "realm", "--bootstrap", bootstrap))
	c := command(t, dir, "enroll", "--state", "node.state", "--bootstrap", bootstrap, "-")
	c.Stdin = strings.NewReader(ticket + "\n")
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	code, said := end()
	if err != nil || !strings.Contains(out.String(), "consume,share") || !strings.Contains(out.String(), "groups billing") {
		t.Fatalf("%v\n%s%s\nthe issuer said\n%s", err, &out, &errs, said)
	}
	if code != 0 || !strings.Contains(said, "credential given") {
		t.Errorf("the issuer: exit %d\n%s", code, said)
	}
	for _, secret := range []string{ticket, ticket[len(ticket)-40:]} {
		if strings.Contains(said+out.String()+errs.String(), secret) {
			t.Error("a ticket was printed")
		}
	}
	info, err := os.Stat(filepath.Join(dir, "realm", "issuer.book"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("book: %v, %v", info, err)
	}
}

func TestAnEnrolmentWithoutIssuerSaysSo(t *testing.T) {
	dir, bootstrap, ticket := ticketed(t)
	code, _, errs := invoke(t, dir, "enroll", "--state", "node.state", "--bootstrap", bootstrap, "--timeout", "1s", ticket)
	if code != exitFailed || !strings.Contains(errs, "no issuer answered within 1s") || !strings.Contains(errs, "\nhint: see that `wasm-e2ee issuer` runs") {
		t.Errorf("exit %d: %s", code, errs)
	}
	end := background(t, command(t, dir, "enroll", "--state", "other.state", "--bootstrap", bootstrap, ticket))
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "other.state")); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if code, errs := end(); code != exitInterrupted {
		t.Errorf("interrupted: exit %d: %s", code, errs)
	}
}

func TestMistakesWithTicketsAreNamed(t *testing.T) {
	dir, bootstrap, ticket := ticketed(t)
	for _, c := range []struct {
		line string
		code int
		text string
	}{
		{"realm ticket --dir realm", exitFailed, "hint: --produce TOPIC"},
		{"realm ticket --dir realm --produce a --lifetime 25h", exitFailed, "up to 24h"},
		{"realm ticket --dir realm --produce a --days 0", exitFailed, "--days"},
		{"realm ticket --dir none --produce a", exitFailed, "hint: wasm-e2ee realm init"},
		{"issuer --dir realm", exitFailed, "hint: --bootstrap HOST:PORT"},
		{"issuer --dir none --bootstrap " + bootstrap, exitFailed, "hint: wasm-e2ee realm init"},
		{"issuer --dir realm --bootstrap 127.0.0.1:1", exitFailed, "cannot be reached"},
		{"enroll --state new.state", exitUsage, "one of: a TICKET"},
		{"enroll --state new.state --csr a " + ticket, exitUsage, "one of: a TICKET"},
		{"enroll --state new.state --produce a " + ticket, exitUsage, "the ticket says"},
		{"enroll --state new.state " + ticket, exitFailed, "hint: --bootstrap HOST:PORT"},
		{"enroll --state new.state --bootstrap " + bootstrap + " " + ticket[:60], exitFailed, "hint: copy the whole line"},
		{"enroll --state new.state --bootstrap " + bootstrap + " realm/issuer.book", exitFailed, "hint: a ticket is the line"},
		{"enroll --state new.state --bootstrap " + bootstrap + " no.ticket", exitFailed, "hint: name the file"},
		{"realm ticket --dir realm --produce a --out realm/root.key", exitFailed, "never overwritten"},
	} {
		code, _, errs := invoke(t, dir, strings.Fields(c.line)...)
		if code != c.code || !strings.Contains(errs, c.text) {
			t.Errorf("wasm-e2ee %s: exit %d, want %d and %q\n%s", c.line, code, c.code, c.text, errs)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "new*")); left != nil {
		t.Errorf("mistakes left %v", left)
	}
}

// TestATicketTravelsInAFileOfItsOwn that only its user reads, and never through the process
// list.
func TestATicketTravelsInAFileOfItsOwn(t *testing.T) {
	dir, bootstrap, _ := ticketed(t)
	code, out, errs := invoke(t, dir, strings.Fields("realm ticket --dir realm --produce orders --out node.ticket")...)
	if code != 0 || out != "" || !strings.Contains(errs, "HOST:PORT node.ticket") {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	if info, err := os.Stat(filepath.Join(dir, "node.ticket")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("ticket: %v, %v", info, err)
	}
	end := background(t, command(t, dir, "issuer", "--dir", "realm", "--bootstrap", bootstrap))
	code, out, errs = invoke(t, dir, "enroll", "--state", "node.state", "--bootstrap", bootstrap, "node.ticket")
	if _, said := end(); code != 0 || !strings.Contains(out, "node ") {
		t.Errorf("exit %d\n%s%s\nthe issuer said\n%s", code, out, errs, said)
	}
}
