package splice

import (
	"bytes"
	"errors"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/wasm-e2ee/wasm-e2ee/module/kernel/simd"
)

// A guest is a module as a linker writes it, with imports before, between and after those of
// the kernel.
type guest struct {
	imports           []string // module and name
	crcType, sealType byte     // of the signatures below
	pollType          byte
	export            byte // number of the function that is exported
	element           byte // number of the function in the table
	body              []byte
}

// Numbers in the guest: three imports of env, two of the kernel, then its own function.
const (
	guestBefore, guestCRC, guestBetween, guestSeal, guestAfter, guestRun = 0, 1, 2, 3, 4, 5
)

func newGuest() guest {
	return guest{
		imports:  []string{"env before", "kernel crc32c", "env between", "kernel seal", "env after"},
		crcType:  1,
		sealType: 2,
		export:   guestRun,
		element:  guestRun,
		// before() ^ between() ^ after() ^ crc32c(0, 64, 9, 1024, 32768)
		body: []byte{1, 1, 0x7f,
			0x10, guestBefore, 0x10, guestBetween, 0x73, 0x10, 0x84, 0x80, 0x00, 0x73, // after, in a number of 3 bytes
			0x41, 0, 0x41, 0xc0, 0x00, 0x41, 9, 0x41, 0x80, 0x08, 0x41, 0x80, 0x80, 0x02, 0x10, guestCRC, 0x73, 0x0b},
	}
}

func sized(b []byte) []byte { return append(appendUint(nil, uint32(len(b))), b...) }

func vector(parts ...[]byte) []byte {
	return append(appendUint(nil, uint32(len(parts))), slices.Concat(parts...)...)
}

func (g guest) module() []byte {
	types := [][]byte{
		{0x60, 0, 1, 0x7f},
		{0x60, 5, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f},
		{0x60, 7, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0},
		{0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f},
	}
	var imports [][]byte
	for _, i := range g.imports {
		module, name, _ := strings.Cut(i, " ")
		typ := byte(0)
		switch name {
		case "crc32c":
			typ = g.crcType
		case "seal":
			typ = g.sealType
		case noWait.Name:
			typ = g.pollType
		}
		imports = append(imports, slices.Concat(sized([]byte(module)), sized([]byte(name)), []byte{0, typ}))
	}
	out := []byte(header)
	for _, s := range []section{
		{sectionType, vector(types...)},
		{sectionImport, vector(imports...)},
		{sectionFunction, vector([]byte{0})},
		{4, vector([]byte{0x70, 0, 1})},
		{5, vector([]byte{0, 4})},
		{sectionExport, vector(append(sized([]byte("run")), 0, g.export), append(sized([]byte("memory")), 2, 0))},
		{sectionElement, vector([]byte{0, 0x41, 0, 0x0b, 1, g.element})},
		{sectionCode, vector(sized(g.body))},
		{0, append(sized([]byte("note")), "kept"...)},
	} {
		out = append(append(out, s.id), sized(s.body)...)
	}
	return out
}

func TestImportsBecomeTheKernelAndOthersKeepTheirMeaning(t *testing.T) {
	spliced, err := Splice(newGuest().module())
	if err != nil {
		t.Fatal(err)
	}
	rt := wazero.NewRuntime(t.Context())
	defer rt.Close(t.Context())
	env := rt.NewHostModuleBuilder("env")
	for i, name := range []string{"before", "between", "after"} {
		env.NewFunctionBuilder().WithFunc(func() uint32 { return 0x11 << (8 * i) }).Export(name)
	}
	if _, err := env.Instantiate(t.Context()); err != nil {
		t.Fatal(err)
	}
	m, err := rt.Instantiate(t.Context(), spliced)
	if err != nil {
		t.Fatal(err)
	}
	m.Memory().WriteString(64, "123456789")
	for i, r := range simd.Table() {
		m.Memory().WriteUint32Le(uint32(1024+4*i), r)
	}
	got, err := m.ExportedFunction("run").Call(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := crc32.Checksum([]byte("123456789"), crc32.MakeTable(crc32.Castagnoli)) ^ 0x111111
	if uint32(got[0]) != want {
		t.Errorf("%08x, want %08x", got[0], want)
	}
	if !bytes.HasSuffix(spliced, []byte("\x00\x09\x04notekept")) {
		t.Error("what has nothing to do with functions changed")
	}
	if again, _ := Splice(newGuest().module()); !bytes.Equal(again, spliced) {
		t.Error("the same module gave other bytes")
	}
}

// A module that waits for something, as Go's runtime does for the network when a collection
// ends, is told at once that nothing happened.
func TestNothingIsWaitedFor(t *testing.T) {
	g := newGuest()
	g.imports[4] = wasi + " poll_oneoff"
	g.pollType = 3
	g.export, g.element = guestRun, guestRun
	// memory[48] = 7; poll_oneoff(0, 0, 1, 48) + memory[48]
	g.body = []byte{0, 0x41, 48, 0x41, 7, 0x36, 2, 0,
		0x41, 0, 0x41, 0, 0x41, 1, 0x41, 48, 0x10, guestAfter, 0x41, 48, 0x28, 2, 0, 0x6a, 0x0b}
	spliced, err := Splice(g.module())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(spliced, []byte("poll_oneoff")) {
		t.Error("poll_oneoff is imported still")
	}
	rt := wazero.NewRuntime(t.Context())
	defer rt.Close(t.Context())
	if _, err := rt.NewHostModuleBuilder("env").
		NewFunctionBuilder().WithFunc(func() uint32 { return 0 }).Export("before").
		NewFunctionBuilder().WithFunc(func() uint32 { return 0 }).Export("between").Instantiate(t.Context()); err != nil {
		t.Fatal(err)
	}
	m, err := rt.Instantiate(t.Context(), spliced)
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.ExportedFunction("run").Call(t.Context())
	if err != nil || got[0] != 0 {
		t.Errorf("error number and events: %v, %v", got, err)
	}
}

func TestWhatIsNoSuchModuleIsRefused(t *testing.T) {
	for name, change := range map[string]func(*guest){
		"nothing from the kernel":  func(g *guest) { g.imports[1], g.imports[3] = "env crc", "env s" },
		"an unknown name":          func(g *guest) { g.imports[3] = "kernel unseal" },
		"a helper's name":          func(g *guest) { g.imports[3] = "kernel " },
		"the same name twice":      func(g *guest) { g.imports[3] = "kernel crc32c" },
		"another signature":        func(g *guest) { g.crcType = 0 },
		"a type that is not there": func(g *guest) { g.sealType = 9 },
		"an exported import":       func(g *guest) { g.export = guestAfter },
		"an import in the table":   func(g *guest) { g.element = guestCRC },
		"an unknown instruction":   func(g *guest) { g.body = []byte{0, 0xd2, 0x0b} },
		"a call cut short":         func(g *guest) { g.body = []byte{0, 0x10} },
	} {
		g := newGuest()
		change(&g)
		out, err := Splice(g.module())
		if err == nil || out != nil {
			t.Errorf("%s: error %v", name, err)
		}
		if name == "nothing from the kernel" && !errors.Is(err, ErrNoKernel) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	module := newGuest().module()
	whole := len(module) - len("\x00\x09\x04notekept")
	for n := range whole {
		if _, err := Splice(module[:n]); err == nil {
			t.Fatalf("took %d of %d bytes", n, whole)
		}
	}
}

// FuzzSplice wants no panic, and of what it takes that it cannot be taken again.
func FuzzSplice(f *testing.F) {
	f.Add(newGuest().module())
	f.Fuzz(func(t *testing.T, module []byte) {
		out, err := Splice(module)
		if err != nil {
			return
		}
		if _, err := Splice(out); err == nil {
			t.Error("a spliced module still imports the kernel")
		}
	})
}
