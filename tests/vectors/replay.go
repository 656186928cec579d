package vectors

import (
	"embed"
	"fmt"
)

//go:embed replay/*.json
var replayData embed.FS

// A Replay is batches that opened, as whoever delivers them is told of each before it does, and
// whether it may (PROTOCOL.md §2.8.6). Base offsets are as the broker serves them.
type Replay struct {
	Name    string `json:"-"` // of the file, without .json
	Comment string `json:"comment"`
	Refusal string `json:"refusal,omitempty"` // of PROTOCOL.md §2.19

	Room  int          `json:"room,omitempty"` // for kids and batches together; 2^22 if 0
	Steps []ReplayStep `json:"steps"`
}

// A ReplayStep is one thing that happens: the noting of end offsets, the erasure of a key, a
// restart with what the disk has, or else a batch that opened.
type ReplayStep struct {
	Kid Bytes `json:"kid,omitempty"`

	Ends    map[int32]int64 `json:"ends,omitempty"` // E_p of Kid by partition
	Erase   bool            `json:"erase,omitempty"`
	Restart bool            `json:"restart,omitempty"`

	Leaf      uint32 `json:"leaf,omitempty"`
	Partition int32  `json:"partition,omitempty"`
	Offset    int64  `json:"offset,omitempty"`
	Want      Kind   `json:"want,omitempty"` // taken, replayed or erased
}

// Replayed is the kind of a batch that stood at another offset before, or cannot stand where it
// does.
const Replayed Kind = "replayed"

// Replays returns the corpus of batches that come again, under the same rules as All.
func Replays() ([]Replay, error) {
	return loadFolder(replayData, "replay", func(v *Replay, name string) error {
		v.Name = name
		if v.Comment == "" || len(v.Steps) == 0 {
			return fmt.Errorf("no comment or no step")
		}
		return nil
	})
}
