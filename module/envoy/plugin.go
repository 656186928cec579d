package envoy

import (
	"bytes"
	"errors"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
	"github.com/wasm-e2ee/wasm-e2ee/module/filter"
)

// tickPeriod in ms is how often what waits is looked at.
const tickPeriod = 50

// A PairingKey writes the key that the environment holds to key, and wipes it there. It
// returns an error that does not tell what stood there instead.
type PairingKey func(key *[channel.KeySize]byte) error

// A plane is what a configuration makes: what all connections of a virtual machine share.
type plane struct {
	text    []byte // of the configuration
	cfg     *plugin.Config
	filter  *filter.Filter
	channel *Channel
	worker  *Worker
}

// OnConfigure takes a root context's configuration, the first one of a virtual machine for
// good. It reports whether it accepts it; a host that goes on without would let plaintext
// through (FAIL_OPEN).
func (v *VM) OnConfigure(root uint32) (ok bool) {
	v.guard(nil, func() {
		err := v.configure(v.host.Buffer(plugin.BufferConfig, nil))
		if err != nil {
			v.log(plugin.LevelError, "configuration refused", "err", err)
			return
		}
		v.roots[root] = true
		v.host.Tick(tickPeriod)
		ok = true
	})
	return ok
}

func (v *VM) configure(text []byte) error {
	if v.plane != nil {
		if !bytes.Equal(text, v.plane.text) {
			return errors.New("another configuration is in force in this virtual machine (hint: give listeners that differ, and a changed configuration, a vm_id of their own)")
		}
		return nil
	}
	p := &plane{text: bytes.Clone(text)}
	var err error
	if p.cfg, err = plugin.Parse(p.text); err != nil {
		return err
	}
	if err := v.build(p); err != nil {
		return err
	}
	v.define()
	v.plane = p
	return nil
}

// build makes the parts of a plane from its configuration.
func (v *VM) build(p *plane) error {
	rules, err := p.cfg.Rules()
	if err != nil {
		return err
	}
	realm, err := p.cfg.RealmID()
	if err != nil {
		return err
	}
	p.filter = filter.New(v.random)
	if s := p.filter.Configure(abi.Config{MaxDecompressed: uint32(p.cfg.MaxFrameBytes), Rules: rules}); s != abi.StatusOK {
		return s
	}
	keys := NewKeys(p.filter)
	var key [channel.KeySize]byte
	defer clear(key[:])
	if err := v.key(&key); err != nil {
		return err
	}
	if p.channel, err = NewChannel(realm, &key, v.random, keys); err != nil {
		return err
	}
	brokers := Brokers{ByID: map[int32]Endpoint{}, Host: p.cfg.Brokers.Host, BasePort: p.cfg.Brokers.BasePort}
	for id, address := range p.cfg.Brokers.ByID {
		host, port, err := plugin.SplitAddress(address)
		if err != nil {
			return err
		}
		brokers.ByID[id] = Endpoint{host, port}
	}
	p.worker = NewWorker(Config{
		Brokers:        brokers,
		ProduceWait:    p.cfg.ProduceWaitMs,
		MaxFrame:       p.cfg.MaxFrameBytes,
		NamesOnly:      len(rules) > 0,
		MaxMemory:      p.cfg.MaxMemoryBytes,
		Shared:         v.host,
		Event:          v.event,
		SkipUnreadable: p.cfg.Policy.OnUnreadable == "skip",
	}, p.filter, keys)
	return nil
}
