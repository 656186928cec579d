package agent

import (
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

func TestContactStandsStillWhileAControlTopicDoesNotAnswer(t *testing.T) {
	w := newWorld(t)
	var log logBook
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), slow, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) }).ready()
	contact := func() time.Time { return consumer.Snapshot().Contact }
	eventually(t, "contact", func() bool { return !contact().IsZero() })
	first := contact()
	eventually(t, "contact again", func() bool { return contact().After(first) })

	fault := w.c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Count: -1, Topic: grantsTopic, Err: kerr.TopicAuthorizationFailed})
	eventually(t, "a line about it", func() bool { return strings.Contains(log.String(), "no contact") })
	lost := contact()
	time.Sleep(2 * slow.PrekeyRotation)
	if now := contact(); now != lost {
		t.Errorf("contact at %v, though it was lost after %v", now, lost)
	}
	fault.Remove()
	eventually(t, "contact after the topic answers again", func() bool { return contact().After(lost) })
}

// TestEveryAlarmIsListed reads the source: a kind that Alarms lacks would have no metric.
func TestEveryAlarmIsListed(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "alarm.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var declared []Alarm
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Alarm") {
			declared = append(declared, Alarm(strings.Trim(v.Values[0].(*ast.BasicLit).Value, `"`)))
		}
		return true
	})
	if len(declared) == 0 || !slices.Equal(declared, Alarms()) {
		t.Errorf("alarm.go declares %v, Alarms lists %v", declared, Alarms())
	}
}
