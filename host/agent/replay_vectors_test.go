package agent

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

func TestBatchesThatComeAgainAreJudgedAsPublished(t *testing.T) {
	all, err := vectors.Replays()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		t.Run(v.Name, func(t *testing.T) {
			if v.Room == 0 {
				v.Room = maxReplayEntries
			}
			path := filepath.Join(t.TempDir(), "state.replay")
			file, _, _, err := openReplayFile(path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { file.close() }()
			g := newReplayGuard(v.Room)
			ends, erased := map[abi.Kid]map[int32]int64{}, map[abi.Kid]bool{}
			known := func(kid abi.Kid) (map[int32]int64, bool) { return ends[kid], !erased[kid] }
			for i, s := range v.Steps {
				switch {
				case s.Restart:
					if err := file.flush(g); err != nil {
						t.Fatal(err)
					}
					file.close()
					var held replayEntries
					if file, held, _, err = openReplayFile(path); err != nil {
						t.Fatal(err)
					}
					g = newReplayGuard(v.Room)
					g.restore(held, known)
				case s.Ends != nil:
					ends[abi.Kid(s.Kid)] = s.Ends
					g.noteEnds(known)
				case s.Erase:
					erased[abi.Kid(s.Kid)] = true
					g.forget([]abi.Kid{abi.Kid(s.Kid)})
				default:
					first, _, err := g.first(abi.Kid(s.Kid), s.Leaf, s.Partition, s.Offset, known)
					got := vectors.Taken
					switch {
					case errors.Is(err, abi.StatusErased):
						got = vectors.Erased
					case err != nil:
						t.Fatal(err)
					case !first:
						got = vectors.Replayed
					}
					if got != s.Want {
						t.Errorf("step %d: %s, want %s", i, got, s.Want)
					}
				}
			}
		})
	}
}
