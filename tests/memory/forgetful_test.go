//go:build linux

package memory

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// wipes are the places that wipe, each so changed that it keeps a copy or leaves what it has.
var wipes = []artifact.Edit{
	{File: "host/scrub/do_runtimesecret.go", Old: "secret.Do(f)", New: "_ = secret.Do; f()"},
	{File: "host/keyring/wrap.go", Old: "// wrapSecret seals", New: "var kept [][]byte\nvar keys []hpke.PrivateKey\n\nfunc keep(b []byte) { kept = append(kept, append([]byte(nil), b...)) }\n\n// wrapSecret seals"},
	{File: "host/keyring/wrap.go", Old: "copy(pub[:], key.PublicKey().Bytes())", New: "keys = append(keys, key); copy(pub[:], key.PublicKey().Bytes())"},
	{File: "host/keyring/draft.go", Old: "defer clear(es[:])", New: "defer func() { keep(es[:]) }()"},
	{File: "host/keyring/draft.go", Old: "defer clear(ts[:])", New: "defer func() { keep(ts[:]) }()"},
	{File: "host/keyring/draft.go", Old: "defer clear(root[:])", New: "defer func() { keep(root[:]) }()"},
	{File: "host/keyring/consumer.go", Old: "defer clear(es[:])", New: "defer func() { keep(es[:]) }()"},
	{File: "host/keyring/erase.go", Old: "clear(x.ts[:])", New: "keep(x.ts[:])"},
	{File: "host/keyring/prekey.go", Old: "clear(p.seed[:])", New: "keep(p.seed[:])"},
	{File: "host/engine/foreign/do.go", Old: "func() { seal(", New: "func() { keep(o.Key, o.Nonce); seal("},
	{File: "host/engine/foreign/do.go", Old: "opened = open(", New: "keep(o.Key, o.Nonce); opened = open("},
	{File: "host/engine/foreign/do.go", Old: "// seal encrypts", New: "var kept [][]byte\n\nfunc keep(key *[abi.KeySize]byte, nonce *[abi.SpanNonceSize]byte) {\nsub, _ := chacha20.HChaCha20(key[:], nonce[:16])\nkept = append(kept, sub)\n}\n\n// seal encrypts"},
	{File: "host/engine/foreign/do.go", Old: "\"hash/crc32\"", New: "\"hash/crc32\"\n\"golang.org/x/crypto/chacha20\""},
}

// moduleWipes are the same inside the module, whose kernel is the one in Go.
var moduleWipes = []artifact.Edit{
	{File: "module/filter/keys.go", Old: "clear(r.node[:])", New: "_ = r"},
	{File: "module/filter/keys.go", Old: "p.to.Wipe()", New: "_ = p"},
	{File: "module/filter/seal.go", Old: "clear(f.leaf[:])", New: ""},
	{File: "module/kernel/foreign_wasip1.go", Old: "clear(o.key[:])", New: ""},
}

// A build that wipes nothing shows that each kind of secret is found where it is not wiped:
// most live too short for a search to meet them at work.
func TestABuildThatWipesNothingIsFound(t *testing.T) {
	t.Parallel()
	needsScrub(t)
	overlay, err := artifact.Overlay(t.TempDir(), moduleWipes...)
	must(t, err)
	module, err := artifact.BuildPortable(filepath.Join(t.TempDir(), "e2ee.wasm"), "-overlay="+overlay)
	must(t, err)
	overlay, err = artifact.Overlay(t.TempDir(), wipes...)
	must(t, err)
	binary := filepath.Join(t.TempDir(), "memory.test")
	build := exec.Command("go", "test", "-c", "-vet=off", "-overlay="+overlay, "-o="+binary, "./tests/memory")
	build.Dir, build.Env = artifact.Root(), append(os.Environ(), "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p := newPair(t, newWorld(t, module), binary)
	p.finish()
	p.stateIsClean()
	s := p.everything()
	found := counted(p.consumer.scan(s))
	t.Logf("consumer: %s", list(found))
	wants(t, p.consumer, found, epochSecret+" | "+inProcess, topicSecret+" | "+inProcess,
		prekeySeed+" | "+inProcess, prekeyMLKEM+" | "+inProcess, prekeyVector+" | "+inProcess,
		rootNode+" | "+inLinear, innerNode+" | "+inLinear, leafKey+" | "+inLinear, messageKey+" | "+inProcess)
	found = counted(p.producer.scan(s))
	t.Logf("producer: %s", list(found))
	wants(t, p.producer, found, epochSecret+" | "+inProcess, topicSecret+" | "+inProcess, rootNode+" | "+inProcess,
		leafKey+" | "+inLinear, messageKey+" | "+inProcess)
}
