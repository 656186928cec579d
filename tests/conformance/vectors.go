package conformance

import (
	"bytes"
	"context"
	"fmt"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

// vectorChecks returns a check for each vector of the corpus.
func vectorChecks() ([]check, error) {
	all, err := vectors.All()
	if err != nil {
		return nil, err
	}
	var checks []check
	for _, v := range all {
		checks = append(checks, check{"vector " + v.Name, func(ctx context.Context, m *module) error { return runVector(ctx, m, &v) }})
	}
	return checks, nil
}

func runVector(ctx context.Context, m *module, v *vectors.Vector) error {
	in, err := m.configured(ctx, v.Config())
	if err != nil {
		return err
	}
	defer in.close(ctx)
	for _, l := range v.Leases {
		if err := in.expect(ctx, abi.StatusOK, abi.FuncInstallLease, l.Block()); err != nil {
			return err
		}
	}
	for _, r := range v.Roots {
		if err := in.expect(ctx, abi.StatusOK, abi.FuncInstallRoot, r.Block()); err != nil {
			return err
		}
	}
	name := abi.FuncOpenBatch
	if v.Op == vectors.OpSeal {
		name = abi.FuncSealBatch
	}
	o, err := in.batch(ctx, name, v.Batch, len(v.Batch), v.Topic, v.Partition, v.Now)
	if err != nil {
		return err
	}
	if o.status != v.Want.Status {
		return fmt.Errorf("%s, want %s", describe(o.status), describe(v.Want.Status))
	}
	if len(v.Want.Kid) > 0 && o.result.Kid != abi.Kid(v.Want.Kid) || o.result.Leaf != v.Want.Leaf || o.result.Records != v.Want.Records {
		return fmt.Errorf("kid %x, leaf %d, %d records; want %x, %d, %d",
			o.result.Kid, o.result.Leaf, o.result.Records, []byte(v.Want.Kid), v.Want.Leaf, v.Want.Records)
	}
	if o.status != abi.StatusOK {
		return nil
	}
	if untouched := o.result.Flags == abi.FlagUntouched; untouched != v.Want.Untouched {
		return fmt.Errorf("flags %x, want untouched: %v", o.result.Flags, v.Want.Untouched)
	}
	switch {
	case v.Want.Untouched:
		return same(o.batch, v.Batch)
	case v.Op == vectors.OpOpen:
		return same(o.batch, v.Want.Batch)
	}
	s := reference.Seal{Root: [abi.KeySize]byte(v.Roots[0].Root), Topic: v.Topic, Partition: v.Partition}
	opened, err := s.Open(o.batch)
	if err != nil {
		return fmt.Errorf("the reference does not open what was sealed: %w", err)
	}
	return same(opened, v.Batch)
}

func same(got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	return fmt.Errorf("batch of %d bytes differs from the %d bytes wanted: %.64x, want %.64x", len(got), len(want), got, want)
}
