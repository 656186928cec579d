package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// wants is the flags that say what a node may do.
type wants struct {
	Produce []string      `placeholder:"TOPIC" help:"Topics to produce: a name, or a prefix that ends in *. May be repeated."`
	Consume []string      `placeholder:"TOPIC" help:"Topics to consume."`
	Group   []string      `help:"Consumer groups of the applications behind this node; keys are erased as these groups commit."`
	Share   bool          `default:"true" negatable:"" help:"The node hands its groups' keys to members that join late or lost their disk."`
	Offline time.Duration `default:"72h" help:"How long this node may be offline and still read what was sealed meanwhile."`
}

// any reports whether something is asked for.
func (w *wants) any() bool { return len(w.Produce)+len(w.Consume)+len(w.Group) != 0 }

// attributes is what a request or a ticket is for.
func (w *wants) attributes() (keyring.Attributes, error) {
	want := keyring.Attributes{OfflineAllow: w.Offline}
	for _, list := range []struct {
		texts []string
		role  wire.Roles
	}{{w.Produce, wire.RoleProduce}, {w.Consume, wire.RoleConsume}} {
		for _, text := range list.texts {
			p, err := wire.ParsePattern(text)
			if err != nil {
				return want, err
			}
			want.Roles |= list.role
			if !slices.Contains(want.Topics, p) {
				want.Topics = append(want.Topics, p)
			}
		}
	}
	for _, text := range w.Group {
		p, err := wire.ParsePattern(text)
		if err != nil {
			return want, err
		}
		want.Groups = append(want.Groups, p)
	}
	if want.Roles == 0 {
		return want, errors.New("nothing asked for\nhint: --produce TOPIC, or --consume TOPIC --group GROUP, or both")
	}
	// A credential has one list of topics for all its roles.
	if want.Roles.Has(wire.RoleProduce|wire.RoleConsume) && !sameTopics(w.Produce, w.Consume) {
		return want, errors.New("one credential covers the same topics for both roles\nhint: name the same topics with --produce and --consume, or run one sidecar for each role")
	}
	switch consume := want.Roles.Has(wire.RoleConsume); {
	case consume && len(want.Groups) == 0:
		fmt.Fprintln(os.Stderr, "warning: no --group: keys are then erased by the hard cap alone (7 days), not as they are consumed")
	case consume && w.Share:
		want.Roles |= wire.RoleShare
	}
	return want, nil
}

func sameTopics(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}
