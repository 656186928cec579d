// Command generate writes the corpus of package vectors into its folders, which it first
// empties:
//
//	go run ./internal/generate [data] [control] [issuer] [enrolment] [replay]
//
// from the folder tests/vectors; all of them without an argument. Everything is fixed, salts and
// serials included, but for the wraps in control: HPKE draws anew each time. Compressed
// sections may differ from one version of a compressor to the next.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

func main() {
	log.SetFlags(0)
	if _, err := os.Stat("vectors.go"); err != nil {
		log.Fatal("run this in the folder tests/vectors")
	}
	for _, folder := range []struct {
		name  string
		write func() int
	}{{"data", writeBatches}, {"control", writeControls}, {"issuer", writeDecisions}, {"enrolment", writeEnrolments}, {"replay", writeReplays}} {
		if len(os.Args) == 1 || slices.Contains(os.Args[1:], folder.name) {
			empty(folder.name)
			fmt.Println(folder.write(), "vectors in", folder.name)
		}
	}
}

func writeBatches() int {
	c := corpus{}
	c.tree()
	c.opens()
	c.rewrites()
	c.passes()
	c.shapes()
	c.tampered()
	c.headers()
	c.inflates()
	c.seals()
	for name, v := range c {
		v.Want.Means = v.Want.Status.String()
		write("data", name, v)
	}
	return len(c)
}

func writeControls() int {
	c := controls{}
	c.credentials()
	c.bundles()
	c.recipients()
	c.authorities()
	c.grants()
	c.chains()
	c.shares()
	c.requests()
	for name, v := range c {
		write("control", name, v)
	}
	return len(c)
}

func writeDecisions() int {
	c := decisions{}
	c.renewals()
	c.enrolments()
	for name, v := range c {
		write("issuer", name, v)
	}
	return len(c)
}

func writeEnrolments() int {
	c := applications{}
	c.all()
	for name, v := range c {
		write("enrolment", name, v)
	}
	return len(c)
}

func writeReplays() int {
	c := replays{}
	c.all()
	for name, v := range c {
		write("replay", name, v)
	}
	return len(c)
}

// empty removes the vectors of a folder.
func empty(dir string) {
	old, err := filepath.Glob(dir + "/*.json")
	if err != nil {
		log.Fatal(err)
	}
	for _, name := range old {
		if err := os.Remove(name); err != nil {
			log.Fatal(err)
		}
	}
}

func write(dir, name string, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".json"), append(b, '\n'), 0o644); err != nil {
		log.Fatal(err)
	}
}

// A corpus is vectors by name.
type corpus map[string]vectors.Vector

func (c corpus) add(name string, v vectors.Vector) {
	if _, ok := c[name]; ok {
		log.Fatalf("vector %s is there twice", name)
	}
	c[name] = v
}

// open adds what opening a batch of the fixture's topic and partition gives.
func (c corpus) open(name, comment string, batch []byte, want vectors.Want) {
	c.add(name, vectors.Vector{
		Comment: comment, Roots: []vectors.Root{protocolRoot()}, Op: vectors.OpOpen,
		Topic: topic, Partition: partition, Batch: batch, Want: want,
	})
}

// refused adds a batch that opening refuses.
func (c corpus) refused(name, comment string, batch []byte, status abi.Status) {
	c.open(name, comment, batch, vectors.Want{Status: status})
}
