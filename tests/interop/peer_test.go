package interop

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
)

// A peer is a running tests/interop/python/serve.py: the second implementation.
type peer struct {
	t   testing.TB
	in  io.Writer
	out *bufio.Reader
}

// octets is bytes as the peer writes them: {"hex": "…"}.
type octets []byte

func (o octets) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, `{"hex":"%x"}`, []byte(o)), nil
}

func (o *octets) UnmarshalJSON(b []byte) (err error) {
	var v struct{ Hex string }
	if err = json.Unmarshal(b, &v); err == nil {
		*o, err = hex.DecodeString(v.Hex)
	}
	return err
}

// An object is a message in the peer's form, or the arguments of a request.
type object map[string]any

func startPeer(t testing.TB) *peer {
	t.Helper()
	deps.Need(t, deps.Python)
	python := filepath.Join(deps.Dir(deps.Python), "bin", "python")
	if out, err := exec.Command(python, "-c", "import cryptography, lz4, zstandard").CombinedOutput(); err != nil {
		deps.Missing(t, fmt.Sprintf("python lacks what the second implementation imports; hint: make deps-python\n%s", out))
	}
	cmd := exec.CommandContext(t.Context(), python, "-B", filepath.Join(deps.Root(), "tests", "interop", "python", "serve.py"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		io.Copy(io.Discard, out)
		if cmd.Wait(); stderr.Len() != 0 {
			t.Errorf("the second implementation said:\n%s", &stderr)
		}
	})
	return &peer{t: t, in: in, out: bufio.NewReaderSize(out, 1<<20)}
}

// ask sends a request. It returns how the peer refused the input, or "" with its answer in
// result, which may be nil.
func (p *peer) ask(op string, args object, result any) (refused string) {
	p.t.Helper()
	request := object{"op": op}
	for k, v := range args {
		request[k] = v
	}
	line, err := json.Marshal(request)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		p.t.Fatalf("%s: %v", op, err)
	}
	if line, err = p.out.ReadBytes('\n'); err != nil {
		p.t.Fatalf("%s: %v", op, err)
	}
	var answer struct {
		OK      json.RawMessage
		Refused string
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		p.t.Fatalf("%s: %v", op, err)
	}
	if answer.Refused == "" && result != nil {
		d := json.NewDecoder(bytes.NewReader(answer.OK))
		d.UseNumber()
		if err := d.Decode(result); err != nil {
			p.t.Fatalf("%s: %v", op, err)
		}
	}
	return answer.Refused
}

// must is ask for what may not be refused.
func (p *peer) must(op string, args object, result any) {
	p.t.Helper()
	if refused := p.ask(op, args, result); refused != "" {
		p.t.Fatalf("%s: refused: %s", op, refused)
	}
}

// A read is what the peer made of a message: its fields and the Kafka key they imply.
type read struct {
	Fields object
	Key    octets
}

// differ compares fields as the peer read them with those of a message of ours.
func differ(t testing.TB, what string, theirs, ours object) {
	t.Helper()
	b, err := json.Marshal(ours)
	if err != nil {
		t.Fatal(err)
	}
	var same object
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&same); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(map[string]any(same), map[string]any(theirs)) {
		t.Errorf("%s: the peer reads\n%v\nwe read\n%v", what, theirs, same)
	}
}

func patternFields(ps []wire.Pattern) any {
	out := []any{}
	for _, p := range ps {
		kind := 0
		if p.Prefix {
			kind = 1
		}
		out = append(out, []any{kind, octets(p.Name)})
	}
	return out
}

func credentialFields(c *wire.Credential) object {
	return object{
		"realm": octets(c.Realm[:]), "node": octets(c.Node[:]), "serial": octets(c.Serial[:]), "subject_pub": octets(c.Subject[:]),
		"lineage": c.Lineage, "not_before": c.NotBefore, "not_after": c.NotAfter, "data_not_before": c.DataNotBefore,
		"offline_allow_s": c.OfflineAllow, "roles": uint16(c.Roles),
		"topics": patternFields(c.Topics), "groups": patternFields(c.Groups), "issuer_pub": octets(c.Issuer[:]),
	}
}

func csrFields(c *wire.CSR) object {
	return object{
		"id_pub": octets(c.Subject[:]), "offline_allow_s": c.OfflineAllow, "roles": uint16(c.Roles),
		"topics": patternFields(c.Topics), "groups": patternFields(c.Groups),
	}
}

func bundleFields(b *wire.PrekeyBundle) object {
	return object{
		"realm": octets(b.Realm[:]), "node": octets(b.Node[:]), "cred_serial": octets(b.Credential[:]), "generation": b.Generation,
		"created": b.Created, "not_after": b.NotAfter, "interest": patternFields(b.Interest), "kem_pub": octets(b.KEMPub[:]),
	}
}

func grantFields(g *wire.Grant) object {
	h := &g.Header
	topics := []any{}
	for _, t := range h.Topics {
		topics = append(topics, object{"topic": octets(t.Name), "commit": octets(t.Commit[:])})
	}
	return object{
		"realm": octets(h.Realm[:]), "node": octets(h.Producer[:]), "cred_serial": octets(h.Credential[:]), "instance": octets(h.Instance[:]),
		"epoch": h.Epoch, "start": h.Start, "use_by": h.UseBy, "flags": uint16(h.Flags), "authority_seq": h.AuthoritySeq,
		"roster_digest": octets(h.RosterDigest[:]), "prev": octets(h.Prev[:]), "topics": topics, "partition": g.Partition,
	}
}
