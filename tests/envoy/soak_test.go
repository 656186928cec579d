package envoy

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/raw"
)

// soak runs a flow for a long time, with garbage beside it and an agent that restarts now and
// then, and holds the memory of both Envoys flat: what they have in the last quarter is little
// more than in the second.
func (w *world) soak(t *testing.T, r *row, out, in *envoyFace, length time.Duration) {
	faces := []*envoyFace{out, in}
	samples := make([][]int64, len(faces)) // RSS, one each second
	w.while(t, r, "soak", out, in, 300, func(ctx context.Context) {
		kinds := raw.Garbage(rand.New(rand.NewPCG(1, 2)))
		var names []string
		for name := range kinds {
			names = append(names, name)
		}
		slices.Sort(names)
		begin := time.Now()
		for i := 0; time.Since(begin) < length; i++ {
			for k, f := range faces {
				samples[k] = append(samples[k], f.rss())
				if err := closes(f.bootstrap(), kinds[names[i%len(names)]]); err != nil {
					t.Errorf("%s: %v", names[i%len(names)], err)
				}
			}
			if i%120 == 119 {
				f := faces[i/120%2]
				f.agent.Crash()
				f.agent.Start(t)
			}
			pause(ctx, time.Until(begin.Add(time.Duration(i+1)*time.Second)))
		}
	})
	for k, f := range faces {
		if n := f.metric("closed_connections_total.fault.module"); n != 0 {
			t.Errorf("%s: the module closed %d connections by a bug", f, n)
		}
		n := len(samples[k]) / 4
		if n == 0 {
			t.Fatal("too short to tell anything of memory")
		}
		early, late := median(samples[k][n:2*n]), median(samples[k][3*n:])
		r.note("RSS %d MB, then %d MB", early>>20, late>>20)
		if late > early+early/10+20<<20 {
			t.Errorf("%s at %s: %d MB in the second quarter, %d MB in the last", f, f.addr, early>>20, late>>20)
		}
	}
}

func median(all []int64) int64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}
