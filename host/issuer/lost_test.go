package issuer

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// Somebody deletes the roster. Who reads the new one finds who is revoked, and nodes enrol on it.
func TestARosterThatIsMadeAnewSaysAgainWhoIsRevoked(t *testing.T) {
	r := newRealm(t)
	r.serve(time.Hour)
	before := r.watch()
	eventually(t, "a first state", func() bool { return before.state() != nil })
	cl, err := kgo.NewClient(r.kafka...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	if _, err := adm.DeleteTopics(t.Context(), keyring.RosterTopic); err != nil {
		t.Fatal(err)
	}
	compact := "compact"
	if _, err := adm.CreateTopic(t.Context(), 1, 1, map[string]*string{"cleanup.policy": &compact}, keyring.RosterTopic); err != nil {
		t.Fatal(err)
	}
	after := r.watch()
	eventually(t, "the state on the new roster", func() bool { return after.state() != nil })
	if seq := after.state().Seq; seq != 1 {
		t.Errorf("state %d, want the same again", seq)
	}
	r.enrol(r.ticket(wire.RoleConsume, time.Hour))
}
