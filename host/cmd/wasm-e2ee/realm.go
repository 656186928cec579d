package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// Names of the files of a realm's directory.
const (
	rootFile   = "root.key"   // PRIVATE; needed again only to make another issuer
	issuerFile = "issuer.key" // PRIVATE
)

type realmInit struct {
	Dir        string `required:"" type:"path" placeholder:"DIR" help:"Directory for the realm's keys; made if missing, never overwritten."`
	IssuerDays int    `default:"365" help:"Validity of the issuer's certificate."`
}

func (c *realmInit) Run() error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("realm: %w", err)
	}
	now := time.Now()
	root, err := keyring.NewRealm(rand.Reader)
	if err != nil {
		return err
	}
	defer root.Wipe()
	// Credentials are backdated by the skew, and must not begin before their issuer does.
	issuer, err := root.CertifyIssuer(rand.Reader, now.Add(-keyring.DefaultTiming().Skew), now.AddDate(0, 0, c.IssuerDays))
	if err != nil {
		return err
	}
	defer issuer.Wipe()
	// The issuer first: a root key without an issuer would look like a finished realm.
	for _, f := range []struct {
		name  string
		bytes []byte
	}{{issuerFile, issuer.Marshal()}, {rootFile, root.Marshal()}} {
		err := writeNew(filepath.Join(c.Dir, f.name), f.bytes, 0o600)
		clear(f.bytes)
		if err != nil {
			return err
		}
	}
	fmt.Printf("realm %s\n", root.Realm())
	fmt.Printf("  %-40s signs issuers; keep it offline\n", filepath.Join(c.Dir, rootFile))
	fmt.Printf("  %-40s signs nodes; needed by `issuer` and by `realm issue`\n", filepath.Join(c.Dir, issuerFile))
	fmt.Printf("next: for each node  wasm-e2ee realm ticket --dir %s --produce TOPIC | --consume TOPIC --group GROUP\n"+
		"      and, to answer them  wasm-e2ee issuer --dir %s --bootstrap HOST:PORT\n", c.Dir, c.Dir)
	return nil
}

type realmIssue struct {
	Dir           string        `required:"" type:"path" placeholder:"DIR" help:"The realm's directory."`
	CSR           string        `required:"" name:"csr" type:"path" placeholder:"FILE" help:"The node's request."`
	Out           string        `required:"" type:"path" placeholder:"FILE" help:"Where to write the credential; an older one is replaced."`
	Days          float64       `default:"9" help:"Validity in days."`
	Share         bool          `default:"true" negatable:"" help:"A consumer may hand its groups' keys to their other members, if it asks to."`
	DataNotBefore time.Duration `help:"The node gets no data older than this before now; 0 is no such limit."`
}

func (c *realmIssue) Run() error {
	issuer, err := readIssuer(c.Dir)
	if err != nil {
		return err
	}
	defer issuer.Wipe()
	request, err := os.ReadFile(c.CSR)
	if err != nil {
		return err
	}
	csr, err := keyring.ParseCSR(request)
	if err != nil {
		return fmt.Errorf("%s: %w\nhint: a request is what `wasm-e2ee enroll --csr FILE` wrote", c.CSR, err)
	}
	if c.Days <= 0 {
		return errors.New("--days must be positive")
	}
	now := time.Now()
	v := keyring.Validity{NotBefore: now, NotAfter: now.Add(time.Duration(c.Days * float64(24*time.Hour)))}
	if c.DataNotBefore > 0 {
		v.DataNotBefore = now.Add(-c.DataNotBefore)
	}
	var grant *keyring.Attributes // what it asks for
	if !c.Share {
		grant = &keyring.Attributes{Roles: csr.Roles &^ wire.RoleShare, Topics: csr.Topics, Groups: csr.Groups, OfflineAllow: time.Duration(csr.OfflineAllow) * time.Second}
		csr.Roles = grant.Roles
	}
	credential, err := issuer.Issue(rand.Reader, request, grant, v)
	if err != nil {
		return err
	}
	if err := writePublic(c.Out, credential); err != nil {
		return err
	}
	fmt.Printf("node %s: %s\n  topics %s\n  groups %s\n  valid until %s\n  credential in %s\n",
		wire.NodeIDOf(csr.Subject), csr.Roles, patterns(csr.Topics), patterns(csr.Groups),
		v.NotAfter.Format(time.RFC3339), c.Out)
	return nil
}

// readIssuer reads the issuer's key from a realm's directory. It is the caller's to wipe.
func readIssuer(dir string) (*keyring.Issuer, error) {
	raw, err := os.ReadFile(filepath.Join(dir, issuerFile))
	if err != nil {
		return nil, fmt.Errorf("realm: %w\nhint: wasm-e2ee realm init --dir %s", err, dir)
	}
	defer clear(raw)
	issuer, err := keyring.ParseIssuer(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", issuerFile, err)
	}
	return issuer, nil
}

// patterns lists patterns as people write them.
func patterns(list []wire.Pattern) string {
	if len(list) == 0 {
		return "none"
	}
	out := list[0].String()
	for _, p := range list[1:] {
		out += ", " + p.String()
	}
	return out
}

// writePublic writes a request or a credential, which holds no secret. It replaces one of the
// same kind, so that renewing is the same commands every time, and nothing else.
func writePublic(path string, b []byte) error {
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return writeNew(path, b, 0o644)
	}
	if err != nil {
		return err
	}
	kind, _, _ := bytes.Cut(b, []byte("\n"))
	if !bytes.HasPrefix(old, append(kind, '\n')) {
		return fmt.Errorf("%s exists and is something else\nhint: it is not overwritten; name another file", path)
	}
	return os.WriteFile(path, b, 0o644)
}

// writeNew writes a file that must not exist yet: a private key is never replaced by
// accident.
func writeNew(path string, b []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w\nhint: it is never overwritten; move it away first", err)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}
