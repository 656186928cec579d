package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/host/private"
)

// The replay state on disk (PROTOCOL.md §2.8.6): after a header of 16 bytes, entries of 16
// bytes. Integers are big-endian; n counts the kids of the file from 1.
//
//	kid:    0 u24 ‖ n u24 ‖ 0 u16 ‖ kid 8
//	batch:  n u24 ‖ leaf u24 ‖ partition u24 ‖ offset u56
//	check:  0 u24 ‖ 0 u24 ‖ 0 u48 ‖ CRC-32C u32 of all before this field
//
// Every write ends with a check, and an entry counts only where one follows that holds. It
// carries no secret: all of it stands in the log.
const (
	replayHeader = "KX1 replay v1\x00\x00\x00"
	replayEntry  = 16
	maxNumber    = 1<<24 - 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendKidEntry(b []byte, number uint32, kid abi.Kid) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(number)<<16)
	return append(b, kid[:]...)
}

func appendBatchEntry(b []byte, number uint32, at place, offset int64) []byte {
	// 24 bits of number, 24 of leaf, the upper 16 of partition; its lower 8, 56 of offset.
	b = binary.BigEndian.AppendUint64(b, uint64(number)<<40|uint64(at)>>8)
	return binary.BigEndian.AppendUint64(b, uint64(at)<<56|uint64(offset))
}

// appendCheck appends the check of everything in the file so far, whose CRC before b is sum,
// and returns the CRC with it.
func appendCheck(b []byte, sum uint32) ([]byte, uint32) {
	b = append(b, make([]byte, replayEntry-4)...)
	sum = crc32.Update(sum, castagnoli, b)
	b = binary.BigEndian.AppendUint32(b, sum)
	return b, crc32.Update(sum, castagnoli, b[len(b)-4:])
}

// A replayEntries is what a file holds, in the order in which it was written.
type replayEntries struct {
	kids    []abi.Kid // the first has the number 1
	batches map[abi.Kid]map[place]int64
	damaged bool // something was there that is not to be trusted; a torn last write is none
}

// parseReplays reads a file as far as its checks hold.
func parseReplays(b []byte) replayEntries {
	out := replayEntries{batches: make(map[abi.Kid]map[place]int64)}
	body, ok := bytes.CutPrefix(b, []byte(replayHeader))
	if !ok {
		out.damaged = true
		return out
	}
	sum := crc32.Checksum([]byte(replayHeader), castagnoli)
	from, checked := 0, false // the entries from there on wait for their check
	for n := 0; n+replayEntry <= len(body); n += replayEntry {
		entry := body[n : n+replayEntry]
		if !isCheck(entry) {
			continue
		}
		sum = crc32.Update(sum, castagnoli, body[from:n+replayEntry-4])
		if sum != binary.BigEndian.Uint32(entry[replayEntry-4:]) || !out.add(body[from:n]) {
			out.damaged = true
			return out
		}
		sum = crc32.Update(sum, castagnoli, entry[replayEntry-4:])
		from, checked = n+replayEntry, true
	}
	// The first write is never torn: the file is renamed into place.
	out.damaged = !checked || !out.follow(body[from:len(body)-len(body)%replayEntry])
	return out
}

// add takes entries that were checked.
func (r *replayEntries) add(entries []byte) bool {
	if !r.follow(entries) {
		return false
	}
	for ; len(entries) > 0; entries = entries[replayEntry:] {
		high, low := binary.BigEndian.Uint64(entries), binary.BigEndian.Uint64(entries[8:])
		if number := high >> 40; number != 0 {
			r.batches[r.kids[number-1]][place(high<<8&(1<<48-1)|low>>56)] = int64(low & (1<<56 - 1))
			continue
		}
		kid := abi.Kid(entries[8:replayEntry])
		r.kids = append(r.kids, kid)
		if r.batches[kid] == nil {
			r.batches[kid] = make(map[place]int64)
		}
	}
	return true
}

// follow reports whether whole entries, none of them a check, may stand behind those that
// were added: kids are numbered in order, and named before their batches.
func (r *replayEntries) follow(entries []byte) bool {
	kids := uint64(len(r.kids))
	for ; len(entries) > 0; entries = entries[replayEntry:] {
		high := binary.BigEndian.Uint64(entries)
		switch number := high >> 40; {
		case number == 0 && high == (kids+1)<<16:
			kids++
		case number == 0 || number > kids:
			return false
		}
	}
	return true
}

// isCheck tells a check from the other entries, whose numbers count from 1.
func isCheck(entry []byte) bool {
	return bytes.Equal(entry[:replayEntry-4], make([]byte, replayEntry-4))
}

// A replayFile is the file that a guard is written to, beside the state file. It belongs to
// one goroutine at a time.
type replayFile struct {
	path    string
	f       *os.File // nil: it must be written anew
	sum     uint32   // CRC of what is in it
	entries int      // in it, without checks
}

// openReplayFile returns the file at path and what stands in it. missing says that there was
// none. The file is written anew with the first flush.
func openReplayFile(path string) (_ *replayFile, held replayEntries, missing bool, err error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, held, false, fmt.Errorf("replay state %s: %w\nhint: it must be readable for this user; it may be deleted, and replays of what was opened before are then not detected", path, err)
	}
	if err == nil {
		held = parseReplays(b)
	}
	return &replayFile{path: path}, held, err != nil, nil
}

// flush brings to disk what the guard noted since the last one. After an error the next one
// writes all of it anew.
func (r *replayFile) flush(g *replayGuard) error {
	anew, entries, n := g.take(r.f == nil, r.entries)
	if n == 0 && !anew {
		return nil
	}
	err := r.write(anew, entries)
	if err != nil {
		r.close()
		return fmt.Errorf("replay state %s cannot be written: %w\n%s", r.path, err, hintWritable(r.path))
	}
	if anew {
		r.entries = 0
	}
	r.entries += n
	return nil
}

func (r *replayFile) write(anew bool, entries []byte) (err error) {
	if !anew {
		entries, r.sum = appendCheck(entries, r.sum)
		if _, err := r.f.Write(entries); err != nil {
			return err
		}
		return r.f.Sync()
	}
	r.close()
	entries, r.sum = appendCheck(append([]byte(replayHeader), entries...), 0)
	if err := private.Replace(r.path, entries); err != nil {
		return err
	}
	r.f, err = os.OpenFile(r.path, os.O_WRONLY|os.O_APPEND, 0)
	return err
}

func (r *replayFile) close() {
	if r.f != nil {
		// What was synced is there; the rest is written anew.
		_ = r.f.Close()
		r.f = nil
	}
}
