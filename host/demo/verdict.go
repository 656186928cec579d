package demo

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/host/exposure"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/tests/adversary"
)

// leaks are the two attacks and what they were tried on.
type leaks struct {
	log         *adversary.Log
	middle, end *adversary.Report
	exposure    *exposure.Report // of the copy in the middle
}

// leaks waits until the window of exposure has closed behind the last record, copies the
// state once more, and tries both copies on everything the broker stored.
func (s *stage) leaks(ctx context.Context, f *flow) (*leaks, error) {
	s.out.line("")
	s.out.step("the producer stopped; waiting until the consumer has erased the last keys")
	deadline := time.Now().Add(60 * time.Second)
	for held := -1; held != 0; {
		if now := len(s.consumer.Snapshot().Held); now != held {
			held = now
			s.out.step("  keys still held: %d", held)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%w: %d keys are still held a minute after everything was consumed", ErrNotHeld, held)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	end, err := os.ReadFile(s.stateFile)
	if err != nil {
		return nil, err
	}
	readCtx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	l := &leaks{}
	if l.log, err = adversary.Collect(readCtx, []kgo.Opt{kgo.SeedBrokers(s.bootstrap)}, s.topic); err != nil {
		return nil, err
	}
	if l.middle, err = adversary.Attack(f.middle, l.log); err != nil {
		return nil, err
	}
	if l.end, err = adversary.Attack(end, l.log); err != nil {
		return nil, err
	}
	if l.exposure, err = exposureOf(f.middle, l.log, f.copied); err != nil {
		return nil, err
	}
	return l, nil
}

// verdict prints the tally and both attacks, and returns ErrNotHeld where anything is not
// as it must be.
func (s *stage) verdict(ctx context.Context, f *flow, l *leaks) error {
	inClear := 0
	for _, v := range l.log.Values {
		fields := [][]byte{v.Key, v.Bytes}
		for _, h := range v.Headers {
			fields = append(fields, []byte(h.Key), h.Value)
		}
		if inTheClear(f.orders, fields...) {
			inClear++
		}
	}
	snapshot := s.consumer.Snapshot()
	epochs := 0
	for _, e := range l.middle.Epochs {
		if e.Records > 0 {
			epochs++
		}
	}

	s.out.title("Tally")
	s.out.step("%-32s %d", "records sent", len(f.orders))
	s.out.step("%-32s %d", "records received equal", f.equal)
	s.out.step("%-32s %d", "received that were not sent", f.extra)
	s.out.step("%-32s %d of %d", "stored in the clear", inClear, len(l.log.Values))
	s.out.step("%-32s %d", "epochs", epochs)
	s.out.step("%-32s %d received, %d erased", "roots at the consumer", snapshot.RootsReceived, snapshot.RootsErased)

	s.out.title("Attack: the consumer's whole state leaks; the attacker has every byte the broker stored")
	s.out.step("copy 1, taken at %s after %d records, opens %d of %d:", f.copied.Format("15:04:05"), f.sent, l.middle.Opened, l.middle.Records)
	s.epochsOf(l.middle, f.copied)
	s.out.step("  `wasm-e2ee exposure` on copy 1: %s", l.exposure.Summary())
	s.out.step("copy 2, taken at the end, opens %d of %d:", l.end.Opened, l.end.Records)
	s.epochsOf(l.end, time.Now())
	s.out.step("keys rotate fast here; with the default timing the window of exposure is %s", keyring.DefaultTiming().P())

	broken, err := s.account(ctx, uint64(len(f.orders)))
	if err != nil {
		return err
	}
	check := func(ok bool, text string) {
		if !ok {
			broken = append(broken, text)
		}
	}
	check(f.equal == len(f.orders), "not every record was received equal")
	check(f.extra == 0, "something was received that was not sent")
	check(inClear == 0, "something is stored in the clear")
	check(l.middle.Records == len(f.orders), "not every record is stored sealed")
	check(epochs >= 2, "the keys did not rotate")
	check(snapshot.RootsErased >= uint64(epochs), "not every root was erased")
	check(l.middle.Opened > 0, "copy 1 opened nothing: the attack is broken")
	check(l.middle.Opened < l.middle.Records, "copy 1 opened everything")
	check(l.end.Opened == 0, "copy 2 opened something")
	check(s.agrees(l.exposure, l.middle), "copy 1 opened other epochs than its exposure report lists")
	s.out.line("")
	for _, text := range broken {
		s.out.step("%s", s.out.paint(red, "NOT HELD: "+text))
	}
	if len(broken) > 0 {
		return ErrNotHeld
	}
	s.out.step("%s\n", s.out.paint(green, "all of it held"))
	return nil
}

// epochsOf lists, epoch by epoch, what a copy opens and why only that.
func (s *stage) epochsOf(r *adversary.Report, copied time.Time) {
	n := 0
	for _, e := range r.Epochs {
		if e.Topic != s.topic || e.Records == 0 {
			continue
		}
		n++
		why := "no: its key was erased before the copy was taken"
		switch {
		case e.Opened > 0 && e.Via == keyring.ViaTopicSecret:
			why = "YES: the copy holds its topic secret, not yet erased"
		case e.Opened > 0:
			why = "YES: the copy holds the prekey that it was granted to"
		case e.Start.After(copied):
			why = "no: granted to a prekey made after the copy was taken"
		}
		s.out.step("  epoch %-2d kid %x  opens %2d of %2d  %s", n, e.Kid[:4], e.Opened, e.Records, why)
	}
}
