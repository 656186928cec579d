package adversary_test

import (
	"reflect"
	"strings"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
)

// A key is 32 bytes that were found in a node's memory. Where they stood among a tree's
// nodes with their place beside them, that is known: level 0 and leaf 0 otherwise.
type key struct {
	bytes [32]byte
	start uint32
	level int
}

// dump is everything of 32 bytes that can be reached from values of this module's types:
// whatever a struct holds, in whatever field, is found, also what was added yesterday.
func dump(values ...any) map[key]bool {
	d := dumper{found: map[key]bool{}, seen: map[uintptr]bool{}}
	for _, v := range values {
		d.walk(reflect.ValueOf(v))
	}
	delete(d.found, key{})
	return d.found
}

type dumper struct {
	found map[key]bool
	seen  map[uintptr]bool
}

const module = "github.com/wasm-e2ee/wasm-e2ee/"

func (d *dumper) walk(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() || d.seen[v.Pointer()] || !strings.HasPrefix(v.Type().Elem().PkgPath(), module) {
			return
		}
		d.seen[v.Pointer()] = true
		d.walk(v.Elem())
	case reflect.Struct:
		if p := v.Type().PkgPath(); p != "" && !strings.HasPrefix(p, module) {
			return
		}
		if d.subtree(v) || d.path(v) {
			return
		}
		for i := range v.NumField() {
			d.walk(v.Field(i))
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			d.walk(it.Key())
			d.walk(it.Value())
		}
	case reflect.Array, reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			if v.Len() == 32 {
				d.add(v, 0, 0)
			}
			return
		}
		if !plain(v.Type().Elem().Kind()) {
			for i := range v.Len() {
				d.walk(v.Index(i))
			}
		}
	}
}

func plain(k reflect.Kind) bool {
	return k >= reflect.Bool && k <= reflect.Complex128 || k == reflect.String
}

func (d *dumper) add(v reflect.Value, start uint32, level int) {
	k := key{start: start, level: level}
	for i := range k.bytes {
		k.bytes[i] = byte(v.Index(i).Uint())
	}
	if k.bytes != [32]byte{} {
		d.found[k] = true
	}
}

// subtree reads a node that stands with its place, as the producer's stacks keep them.
// Places beyond the end of a stack are read like any other.
func (d *dumper) subtree(v reflect.Value) bool {
	start, level, node := v.FieldByName("start"), v.FieldByName("level"), v.FieldByName("node")
	if !start.IsValid() || !level.IsValid() || !node.IsValid() {
		return false
	}
	d.add(node, uint32(start.Uint()), int(level.Uint()))
	return true
}

// path reads the way from a root to a leaf, as consumers' data planes keep them. What
// derives from the root at its beginning adds nothing.
func (d *dumper) path(v reflect.Value) bool {
	nodes, last := v.FieldByName("path"), v.FieldByName("last")
	if !nodes.IsValid() || !last.IsValid() {
		return false
	}
	before := key{}
	for i := range nodes.Len() {
		k := key{level: i}
		for j := range k.bytes {
			k.bytes[j] = byte(nodes.Index(i).Index(j).Uint())
		}
		if k.bytes == [32]byte{} {
			break
		}
		leaf := uint32(last.Uint())
		k.start = leaf &^ (1<<(abi.TreeDepth-i) - 1)
		if i == 0 || before.below(leaf, i) != k.bytes {
			d.found[k] = true
		}
		before = k
	}
	return true
}

// below is the node at a level on the way from k to a leaf.
func (k *key) below(leaf uint32, level int) [32]byte {
	return reference.Node(k.bytes, leaf<<k.level&(1<<abi.TreeDepth-1), level-k.level)
}
